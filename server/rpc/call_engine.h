// Runs a gRPC server whose every call, known method or not, comes through one asynchronous path.
//
// The engine owns the grpc::Server and its pollers. It keeps several calls armed with each, hands each that arrives to
// its method's handler, and knows how to stop without losing one.
//
// Thread-safe, except for what is said below.
#ifndef ATTEND_SERVER_RPC_CALL_ENGINE_H_
#define ATTEND_SERVER_RPC_CALL_ENGINE_H_

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/base/mutex.h"
#include "server/identity/authenticator.h"
#include "server/identity/trusted_proxies.h"
#include "server/rpc/call.h"
#include "server/rpc/connection_acceptor.h"
#include "server/rpc/connection_guard.h"
#include "server/rpc/event_fence.h"
#include "server/rpc/handed_calls.h"
#include "server/rpc/listen_address.h"
#include "server/rpc/memory_budget.h"
#include "server/rpc/poller.h"

namespace attend::server {

class CallEngine {
 public:
  struct Options {
    // `host:port` or `unix:path` each, at least one; port 0 lets the system choose.
    std::vector<std::string> listen;
    std::shared_ptr<grpc::ServerCredentials> credentials;
    // Applies transport settings before the server is built. Empty: gRPC's own.
    std::function<void(grpc::ServerBuilder&)> configure;
    // Completion queues, each with a thread and others that stand in for it; at least 1.
    int num_polling_threads = 1;
    // Told of each call that arrives, on its polling thread. Empty: nobody. Must not block.
    std::function<void(const InboundCall&)> on_started;
    // Told of each message of a stream that was received, or is sent, on the thread that does it. Empty: nobody. Must
    // not block.
    std::function<void(const InboundCall&, bool received, std::size_t bytes)> on_stream_message;
    // Told how long an event waited for its polling thread, on that thread, after each MeasureLoops. Empty: nobody.
    std::function<void(Clock::duration)> on_loop_delay;
    // The most connections at a time; further ones are closed at once.
    int max_connections = 1 << 20;
    // Metadata of one call, in bytes as HTTP/2 counts them (RFC 9113, 6.5.2); a call with many more entries than calls
    // have is cancelled beyond it. 0: none is.
    std::int64_t max_metadata_bytes = 0;
    // What calls may hold that make no progress; see CallWatch for `memory`, which must outlive the engine.
    CallLimits calls;
    const MemoryBudget* memory = nullptr;
    // Says who may call what, and must outlive the engine; null: everybody everything. `mutual_tls`: whether
    // connections show verified certificates.
    Authenticator* authenticator = nullptr;
    bool mutual_tls = false;
    // Whose word on their callers counts; their connections have no share.
    TrustedProxies proxies;
    // Told of each call that the authenticator refused, on a polling thread. Empty: nobody.
    std::function<void(const InboundCall&, const absl::Status&)> on_denied;
    // Told of each call at its end, on the thread that ends it. Empty: nobody. Must not block.
    std::function<void(const InboundCall&, const absl::Status&)> on_finished;
    // What ends connections that take what nothing counts; see ConnectionGuard. Nothing: nobody.
    struct Guard {
      ConnectionGuard::Limits limits;
      std::function<std::int64_t()> counted_bytes;           // Memory that budgets know of. Any thread.
      std::function<void(const EndedConnection&)> on_ended;  // Empty: nobody is told.
    };
    std::optional<Guard> guard = std::nullopt;
  };

  // Binds, starts polling and answers calls. Errors: UNAVAILABLE naming the address that cannot be bound, and why, or
  // when descriptors are short.
  static absl::StatusOr<std::unique_ptr<CallEngine>> Start(Options options, MethodTable methods);

  // Stops at once, if Drain was not called.
  ~CallEngine();

  // The ports bound, in the order of Options::listen.
  const std::vector<int>& ports() const { return ports_; }
  // What each of Options::listen stands for: `127.0.0.1:0, [::1]:0` for localhost:0.
  const std::vector<std::string>& addresses() const { return addresses_; }

  // Stops without losing a call:
  //   1. new calls are refused with UNAVAILABLE and a retry time, streams end, calls in flight go on;
  //   2. when the last of those has finished, every connection is closed; if that takes longer than a second, the
  //      listeners close first and each connection is told to go elsewhere (GOAWAY);
  //   3. what has not finished after `timeout` is cancelled.
  // Step 1 comes before gRPC's own shutdown because that ends calls it meets with CANCELLED, which nobody retries. Only
  // a client that connects anew in the last moment can still meet it. Returns when all is done. REQUIRES: called at
  // most once.
  void Drain(absl::Duration timeout);

  // Cancels every call now; what a second SIGTERM does during Drain.
  void CancelAllCalls();

  // Has each poller measure how long an event waits. Nothing happens once Drain is about to end.
  void MeasureLoops() ABSL_LOCKS_EXCLUDED(mu_);
  // Says when what gRPC has read has been handled. REQUIRES: before Drain only; by one thread at a time, and not while
  // MeasureLoops may run.
  EventFence MakeFence() const;
  // Connections that are open now; looks at each descriptor.
  int open_connections() const { return acceptor_->open_connections(); }
  // Connections that were closed at once because there were too many.
  std::int64_t refused_connections() const { return acceptor_->refused_connections(); }
  // Connections that the guard has ended.
  std::int64_t ended_connections(EndReason reason) const { return guard_ == nullptr ? 0 : guard_->ended(reason); }

  // What it was started with.
  const Options& options() const { return options_; }
  const MethodTable& methods() const { return methods_; }

  // Calls that have been accepted and not ended.
  int calls_in_flight() const { return in_flight_.load(); }
  // Calls that were ever made, armed ones included, and those of them that are deleted. Equal after Drain.
  std::int64_t calls_created() const { return created_.load(std::memory_order_relaxed); }
  std::int64_t calls_released() const { return calls_created() - live_.load(std::memory_order_acquire); }

 private:
  friend class Call;

  CallEngine(Options options, MethodTable methods);
  absl::Status Listen();
  // The sockets behind one of Options::listen; more than one for a name with several addresses.
  absl::StatusOr<std::vector<ListenSocket>> ListenersOf(const std::string& listen);
  absl::Status BuildServer();
  void StartPolling();
  // What the guard looks at.
  ConnectionGuard::Surroundings GuardSurroundings();
  // Of the fence, which waits once the queues take no more events.
  void BeginFence() ABSL_LOCKS_EXCLUDED(mu_);
  FenceState LookAtFence() ABSL_LOCKS_EXCLUDED(mu_);

  // Ends the call that has to, if one more would be too many: whether it did. REQUIRES: no poller's lock is held.
  bool MakeRoom();
  // Asks gRPC for one more call.
  void Arm(Poller& poller);
  void CallDeleted();
  // A call is registered from its start to its end if it is a stream, to be told of Drain.
  void RegisterStream(Call& call) ABSL_LOCKS_EXCLUDED(mu_);
  void UnregisterStream(Call& call) ABSL_LOCKS_EXCLUDED(mu_);
  void WakeStreams() ABSL_LOCKS_EXCLUDED(mu_);
  bool WaitUntilIdle(absl::Duration timeout) const;
  bool draining() const { return draining_.load(); }

  const Options options_;
  const MethodTable methods_;
  grpc::AsyncGenericService service_;
  std::vector<std::unique_ptr<Poller>> pollers_;
  std::vector<std::unique_ptr<UnixSocket>> unix_sockets_;
  std::vector<ListenSocket> listeners_;  // Until the acceptor has them.
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<ConnectionAcceptor::Receiver> receiver_;
  HandedCalls handed_calls_;
  std::unique_ptr<ConnectionGuard> guard_;  // Null where nobody asked for one. The acceptor tells it.
  std::unique_ptr<ConnectionAcceptor> acceptor_;
  std::vector<int> ports_;
  std::vector<std::string> addresses_;
  bool polling_ = false;
  std::atomic<bool> draining_{false};
  std::atomic<std::int64_t> created_{0};
  std::atomic<int> live_{0};       // Calls that exist, armed ones included.
  std::atomic<int> in_flight_{0};  // Calls that have been accepted.
  Mutex mu_;
  absl::flat_hash_map<Call*, CallRef> streams_ ABSL_GUARDED_BY(mu_);
  bool loops_end_ ABSL_GUARDED_BY(mu_) = false;           // The queues take no more events.
  std::optional<EventFence> fence_ ABSL_GUARDED_BY(mu_);  // From its first use.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_CALL_ENGINE_H_
