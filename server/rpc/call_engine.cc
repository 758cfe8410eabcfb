#include "server/rpc/call_engine.h"

#include <grpc/grpc.h>
#include <malloc.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "server/rpc/listen_address.h"
#include "server/rpc/process_memory.h"

namespace attend::server {
namespace {

// Calls armed per completion queue. With one, each new call would wait for the poller to come round and arm the next;
// measured, the rate stops rising at about 16.
constexpr int kArmedCalls = 64;

// How often Drain looks whether the last call has ended.
constexpr absl::Duration kDrainCheckInterval = absl::Milliseconds(1);

// How long new calls are refused one by one before connections are told to go elsewhere.
constexpr absl::Duration kRefuseTime = absl::Seconds(1);

// How long the last responses have to reach their callers before the connections are closed: closing one with unread
// bytes resets it, and the peer may then lose what it has not read.
constexpr absl::Duration kFlushTime = absl::Milliseconds(50);

constexpr char kUnixPrefix[] = "unix:";

}  // namespace

CallEngine::CallEngine(Options options, MethodTable methods)
    : options_(std::move(options)), methods_(std::move(methods)) {
  if (options_.guard.has_value()) {
    guard_ = std::make_unique<ConnectionGuard>(options_.guard->limits, GuardSurroundings(), handed_calls_);
  }
}

ConnectionGuard::Surroundings CallEngine::GuardSurroundings() {
  const auto questions = [this] {
    std::vector<std::uint64_t> of_pollers;
    for (const auto& poller : pollers_) {
      for (const std::uint64_t of_thread : poller->Questions()) of_pollers.push_back(of_thread);
    }
    return of_pollers;
  };
  const auto add_open_calls = [this] {
    for (const auto& poller : pollers_) {
      poller->ForEachCall([this](const Call& call) { handed_calls_.AddCall(call.peer(), call.MayReceive()); });
    }
  };
  return {
      .memory = [memory = std::make_shared<ProcessMemory>(), counted = options_.guard->counted_bytes]() -> ProcessUse {
        return {.anonymous = memory->AnonymousBytes(), .counted = counted()};
      },
      .traffic = [this] { return acceptor_->connections().Traffic(); },
      .next_number = [this] { return acceptor_->connections().next_number(); },
      .shut_down = [this](std::int64_t number) { return acceptor_->connections().Abort(number); },
      .give_back_memory = [] { malloc_trim(0); },
      .free_bytes = [] { return static_cast<std::int64_t>(mallinfo2().fordblks); },
      .questions = questions,
      .is_any_kept =
          [this] {
            return std::any_of(pollers_.begin(), pollers_.end(),
                               [](const auto& poller) { return poller->stands_in(); });
          },
      .look_at_threads =
          [this] {
            for (const auto& poller : pollers_) poller->LookSoon();
          },
      .add_open_calls = add_open_calls,
      .begin_fence = [this] { BeginFence(); },
      .fence_state = [this] { return LookAtFence(); },
      .on_ended =
          [this](const EndedConnection& ended) {
            if (options_.guard->on_ended) options_.guard->on_ended(ended);
          }};
}

absl::StatusOr<std::unique_ptr<CallEngine>> CallEngine::Start(Options options, MethodTable methods) {
  std::unique_ptr<CallEngine> engine(new CallEngine(std::move(options), std::move(methods)));
  if (absl::Status listening = engine->Listen(); !listening.ok()) return listening;
  engine->StartPolling();
  ConnectionAcceptor::Options accepting{.max_connections = engine->options_.max_connections,
                                        .proxies = engine->options_.proxies};
  if (engine->guard_ != nullptr) accepting.on_accepted = [guard = engine->guard_.get()] { guard->OnTraffic(); };
  absl::StatusOr<std::unique_ptr<ConnectionAcceptor>> acceptor =
      ConnectionAcceptor::Start(std::move(engine->listeners_), *engine->receiver_, accepting);
  if (!acceptor.ok()) return acceptor.status();
  engine->acceptor_ = *std::move(acceptor);
  if (engine->guard_ != nullptr) engine->guard_->Start();
  for (const auto& socket : engine->unix_sockets_) {
    if (absl::Status published = socket->Publish(); !published.ok()) return published;
  }
  return engine;
}

absl::StatusOr<std::vector<ListenSocket>> CallEngine::ListenersOf(const std::string& listen) {
  if (!absl::StartsWith(listen, kUnixPrefix)) return ListenOn(listen);
  absl::StatusOr<std::unique_ptr<UnixSocket>> socket = UnixSocket::Reserve(listen.substr(sizeof(kUnixPrefix) - 1));
  if (!socket.ok()) return socket.status();
  absl::StatusOr<ListenSocket> listener = (*socket)->Listen();
  if (!listener.ok()) return listener.status();
  unix_sockets_.push_back(*std::move(socket));
  std::vector<ListenSocket> listeners;
  listeners.push_back(*std::move(listener));
  return listeners;
}

absl::Status CallEngine::Listen() {
  for (const std::string& listen : options_.listen) {
    absl::StatusOr<std::vector<ListenSocket>> listeners = ListenersOf(listen);
    if (!listeners.ok()) return listeners.status();
    ports_.push_back(listeners->front().port());  // Those of one name have one port.
    std::vector<std::string> addresses;
    for (ListenSocket& listener : *listeners) {
      addresses.push_back(listener.address());
      listeners_.push_back(std::move(listener));
    }
    addresses_.push_back(absl::StrJoin(addresses, ", "));
  }
  return BuildServer();
}

absl::Status CallEngine::BuildServer() {
  grpc::ServerBuilder builder;
  // gRPC 1.51 inflates a message without bound before it compares its size with any limit.
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  if (options_.configure) options_.configure(builder);
  using Source = grpc::ServerBuilder::experimental_type::ExternalConnectionType;
  receiver_ = builder.experimental().AddExternalConnectionAcceptor(Source::FROM_FD, options_.credentials);
  builder.RegisterAsyncGenericService(&service_);
  Poller::Options polling{.calls = options_.calls,
                          .memory = options_.memory,
                          .make_room = [this] { return MakeRoom(); },
                          .on_delay = options_.on_loop_delay};
  if (guard_ != nullptr) polling.on_busy = [guard = guard_.get()] { guard->OnTraffic(); };
  for (int i = 0; i < options_.num_polling_threads; ++i) {
    pollers_.push_back(std::make_unique<Poller>(builder.AddCompletionQueue(), polling));
  }
  server_ = builder.BuildAndStart();
  return server_ != nullptr ? absl::OkStatus() : absl::InternalError("gRPC could not start the server; see its log");
}

void CallEngine::StartPolling() {
  polling_ = true;
  for (auto& poller : pollers_) {
    for (int i = 0; i < kArmedCalls; ++i) Arm(*poller);
    poller->Start();
  }
}

void CallEngine::MeasureLoops() {
  const MutexLock lock(mu_);
  if (loops_end_) return;
  for (auto& poller : pollers_) poller->MeasureDelay();
}

EventFence CallEngine::MakeFence() const {
  std::vector<Poller*> pollers;
  for (const auto& poller : pollers_) pollers.push_back(poller.get());
  return EventFence(std::move(pollers), {&acceptor_->thread()}, kArmedCalls);
}

void CallEngine::BeginFence() {
  const MutexLock lock(mu_);
  if (loops_end_) return;
  if (!fence_.has_value()) fence_.emplace(MakeFence());
  fence_->Begin();
}

FenceState CallEngine::LookAtFence() {
  const MutexLock lock(mu_);
  return loops_end_ || !fence_.has_value() ? FenceState::kWaits : fence_->Look();
}

bool CallEngine::MakeRoom() {
  const int most = options_.calls.max_calls, calls = in_flight_.load() + 1;
  if (calls <= most || CallWatch::IsFarBeyond(most, calls) || draining()) return false;
  // The poller that is asked may have no such call any more.
  for (std::size_t i = 0; i < pollers_.size(); ++i) {
    const auto first = std::min_element(pollers_.begin(), pollers_.end(),
                                        [](const auto& a, const auto& b) { return a->first_turn() < b->first_turn(); });
    if ((*first)->first_turn() == CallWatch::kNobodysTurn) return false;
    if ((*first)->EndFirst()) return true;
  }
  return false;
}

void CallEngine::Arm(Poller& poller) {
  created_.fetch_add(1, std::memory_order_relaxed);
  live_.fetch_add(1, std::memory_order_relaxed);
  auto* call = new Call(*this, poller);  // Owned by its operations, see Call.
  call->context_.AsyncNotifyWhenDone(&call->done_tag_);
  grpc::ServerCompletionQueue* queue = &poller.queue();
  service_.RequestCall(&call->context_, &call->stream_, queue, queue, &call->request_tag_);
}

void CallEngine::CallDeleted() { live_.fetch_sub(1, std::memory_order_release); }

void CallEngine::RegisterStream(Call& call) {
  {
    const MutexLock lock(mu_);
    streams_.emplace(&call, CallRef(call));
  }
  if (draining()) call.Wake();  // Drain may have looked before it was registered.
}

void CallEngine::UnregisterStream(Call& call) {
  const MutexLock lock(mu_);
  streams_.erase(&call);
}

void CallEngine::WakeStreams() {
  const MutexLock lock(mu_);
  for (auto& [call, ref] : streams_) call->Wake();
}

void CallEngine::CancelAllCalls() { grpc_server_cancel_all_calls(server_->c_server()); }

bool CallEngine::WaitUntilIdle(absl::Duration timeout) const {
  const absl::Time deadline = absl::Now() + timeout;
  while (calls_in_flight() != 0) {
    if (absl::Now() >= deadline) return false;
    absl::SleepFor(kDrainCheckInterval);
  }
  return true;
}

void CallEngine::Drain(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  draining_.store(true);
  WakeStreams();
  if (WaitUntilIdle(std::min(timeout, kRefuseTime))) {
    absl::SleepFor(std::min(timeout, kFlushTime));
    CancelAllCalls();
  }
  if (acceptor_ != nullptr) acceptor_->Stop();
  for (const auto& socket : unix_sockets_) socket->Withdraw();
  server_->Shutdown(absl::ToChronoTime(deadline));
  // Armed calls have been given back and the others have ended. A queue may be shut down only when nobody can start an
  // operation on it any more, that is when the last call, maybe held by a compute thread, is deleted.
  while (live_.load(std::memory_order_acquire) != 0) absl::SleepFor(kDrainCheckInterval);
  if (guard_ != nullptr) guard_->Stop();
  {
    const MutexLock lock(mu_);
    loops_end_ = true;
  }
  for (auto& poller : pollers_) poller->Shutdown();
  polling_ = false;
}

CallEngine::~CallEngine() {
  if (polling_) Drain(absl::ZeroDuration());
}

}  // namespace attend::server
