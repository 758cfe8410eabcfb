#include "server/connect/connect_call.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/base/protocol.h"
#include "server/connect/connect_protocol.h"
#include "server/connect/json_codec.h"
#include "server/rpc/call_credentials.h"
#include "server/rpc/status.h"

namespace attend::server {
namespace {

// Bodies that are being read may take this part of the memory budget: who sends slowly cannot keep others out.
constexpr int kBodiesPart = 4;

// What Connect's servers answer where there is no method, whose error is UNIMPLEMENTED nevertheless.
constexpr int kNoSuchMethod = 404;

}  // namespace

ConnectCall::ConnectCall(ConnectServices& services, const ConnectMethod* method, HttpRequest request,
                         HttpHeaders headers, const HttpReply& reply)
    : services_(services),
      served_(method),
      request_(std::move(request)),
      headers_(std::move(headers)),
      reply_(reply),
      json_(request_.Header("content-type") == kJsonType) {
  services_.calls.fetch_add(1, std::memory_order_relaxed);
  arrival_ = Clock::now();
  if (served_ == nullptr) return;
  method_id_ = served_->entry->id;
  max_body_bytes_ =
      json_ ? services_.max_json_bytes : static_cast<std::size_t>(services_.requests->limits.max_request_bytes);
  run_.emplace(*services_.requests, json_ ? served_->json : *served_->entry->request_method);
}

ConnectCall::~ConnectCall() {
  run_.reset();
  services_.calls.fetch_sub(1, std::memory_order_release);
}

HttpService::Outcome ConnectCall::Begin(ConnectServices& services, const ConnectMethod* method, HttpRequest request,
                                        HttpHeaders headers, const HttpReply& reply) {
  auto* const made = new ConnectCall(services, method, std::move(request), std::move(headers), reply);
  std::shared_ptr<HttpCall> call(made, [made](HttpCall*) { made->Unref(); });
  if (services.on_started) services.on_started(*made);
  if (absl::Status checked = made->Check(); !checked.ok() && made->BeginFinish()) return made->Refusal(checked);
  return call;
}

absl::Status ConnectCall::Check() {
  if (services_.draining.load()) return DrainingStatus();
  if (served_ == nullptr) {
    return WithDetails(absl::UnimplementedError(absl::StrCat("this door has no method ", method())),
                       {.reason = reason::kUnknownMethod, .field = "", .metadata = {}});
  }
  if (absl::Status headers = CheckConnectHeaders(request_); !headers.ok()) return headers;
  const auto timeout = ConnectTimeout(request_);
  if (!timeout.ok()) return timeout.status();
  if (timeout->has_value()) deadline_ = std::chrono::system_clock::now() + **timeout;
  if (absl::Status allowed = CheckCallerOf(*served_->entry); !allowed.ok()) return allowed;
  if (absl::Status length = CheckLength(); !length.ok()) return length;
  return run_->Admit(*this);
}

absl::Status ConnectCall::CheckCallerOf(const MethodEntry& entry) {
  if (services_.authenticator == nullptr || entry.roles.empty()) return absl::OkStatus();
  const auto header = [this](const char* name) {
    return SentHeader{static_cast<std::size_t>(request_.CountHeader(name)), request_.Header(name)};
  };
  const absl::StatusOr<Credentials> credentials = CredentialsOf({.header = header,
                                                                 .certificate = [this] { return request_.certificate; },
                                                                 .peer = [this] { return request_.peer; }},
                                                                services_.mutual_tls, services_.proxies);
  absl::Status status = CheckCaller(*services_.authenticator, credentials, entry.roles);
  if (!status.ok() && services_.on_denied) services_.on_denied(*this, status);
  return status;
}

absl::Status ConnectCall::TooLong(std::uint64_t bytes) const {
  if (!json_) return CheckRequestBytes(static_cast<std::int64_t>(bytes), services_.requests->limits);
  return LimitExceeded("--max-json-bytes",
                       absl::StrCat("the request has ", bytes, " bytes of JSON; this server accepts at most ",
                                    max_body_bytes_, " (--max-json-bytes): send application/proto"));
}

absl::Status ConnectCall::CheckLength() const {
  std::uint64_t length = 0;
  const std::string_view text = request_.Header("content-length");
  const bool known = absl::SimpleAtoi(absl::string_view(text.data(), text.size()), &length);
  return known && length > max_body_bytes_ ? TooLong(std::min<std::uint64_t>(length, INT64_MAX)) : absl::OkStatus();
}

std::optional<HttpResponse> ConnectCall::OnBodyGrows(std::size_t bytes) {
  const double memory = static_cast<double>(bytes) * (json_ ? kJsonMemory : 1);
  const std::int64_t most = services_.requests->memory->limit_bytes() / kBodiesPart;
  absl::Status room = services_.bodies.CheckRoom(account_.get(), body_memory_.bytes(), memory, most, Clock::now());
  if (room.ok()) room = GrowBody(memory);
  if (room.ok()) return std::nullopt;
  ReleaseBody();
  return BeginFinish() ? std::optional<HttpResponse>(Refusal(room)) : std::nullopt;
}

absl::Status ConnectCall::GrowBody(double memory) {
  const std::int64_t held = body_memory_.bytes();
  absl::Status grown;
  if (held == 0) {
    auto reserved = services_.requests->memory->Reserve(memory, account_);
    grown = reserved.status();
    if (reserved.ok()) body_memory_ = *std::move(reserved);
  } else {
    grown = body_memory_.Resize(memory);
  }
  services_.bodies.Add(account_.get(), body_memory_.bytes() - held);
  return grown;
}

void ConnectCall::ReleaseBody() {
  services_.bodies.Add(account_.get(), -body_memory_.bytes());
  body_memory_.ShrinkTo(0);
}

absl::Status ConnectCall::WhyUnreadable(BodyFault fault) const {
  switch (fault) {
    case BodyFault::kTooLong: return TooLong(max_body_bytes_ + 1);
    case BodyFault::kLate: return NoMessageError(services_.body_timeout);
    case BodyFault::kMalformed: break;
  }
  return WithDetails(absl::InvalidArgumentError("the body is not in chunks as HTTP has them"),
                     {.reason = reason::kMalformedRequest, .field = "", .metadata = {}});
}

HttpResponse ConnectCall::OnUnreadableBody(BodyFault fault) {
  ReleaseBody();
  finished_.store(true);
  return Refusal(WhyUnreadable(fault));
}

void ConnectCall::OnBody(grpc::ByteBuffer& body) {
  running_ = true;
  request_bytes_ = static_cast<std::int64_t>(body.Length());
  ReleaseBody();  // The run takes its own at once.
  // The body may have taken its time, and small requests are computed at once.
  if (DeadlinePassed()) {
    cancelled_.store(true, std::memory_order_release);
    return OnError(CancelledStatus());
  }
  run_->Start(*this, *this, body);
}

std::optional<std::chrono::system_clock::time_point> ConnectCall::watched_deadline() const {
  if (deadline_ == std::chrono::system_clock::time_point::max()) return std::nullopt;
  return deadline_;
}

// The run notices, and answers: it alone may touch the timing now.
void ConnectCall::OnDeadline() { cancelled_.store(true, std::memory_order_release); }

void ConnectCall::OnGone() {
  cancelled_.store(true, std::memory_order_release);
  ReleaseBody();
  if (!running_) OnError(CancelledStatus());  // Else the run says so when it has ended.
}

absl::StatusOr<HttpBody> ConnectCall::BodyOf(const grpc::ByteBuffer& response) {
  if (!json_) return HttpBody(response);
  const Clock::time_point start = Clock::now();
  absl::StatusOr<HttpBody> body = BinaryToJson(response, *served_->response, services_.max_json_bytes);
  timing_.send += Clock::now() - start;
  return body;
}

void ConnectCall::OnResponse(const grpc::ByteBuffer& response, Clock::time_point /*now*/) {
  absl::StatusOr<HttpBody> body = BodyOf(response);
  run_->ShrinkMemoryTo(body.ok() ? static_cast<std::int64_t>(response.Length()) : 0);
  if (!body.ok()) return OnError(body.status());
  if (!BeginFinish()) return;
  response_bytes_ += static_cast<std::int64_t>(body->size());
  HttpResponse answer{.content_type = json_ ? kJsonType : kProtoType, .body = *std::move(body)};
  answer = WithHeaders(std::move(answer));
  if (services_.on_finished) services_.on_finished(*this, absl::OkStatus());
  reply_.Send(std::move(answer));
}

void ConnectCall::OnError(const absl::Status& status) {
  if (BeginFinish()) reply_.Send(Refusal(status));
}

HttpResponse ConnectCall::Refusal(const absl::Status& status) {
  if (services_.on_finished) services_.on_finished(*this, status);
  HttpResponse answer = ConnectError(status);
  if (served_ == nullptr && absl::IsUnimplemented(status)) answer.status = kNoSuchMethod;
  answer.close = services_.draining.load();
  if (absl::IsUnimplemented(status)) answer.headers.emplace_back("accept-encoding", "identity");
  return WithHeaders(std::move(answer));
}

HttpResponse ConnectCall::WithHeaders(HttpResponse answer) const {
  answer.headers.emplace_back(kServerTimingKey, FormatServerTiming(timing_));
  answer.headers.insert(answer.headers.end(), headers_.begin(), headers_.end());
  return answer;
}

}  // namespace attend::server
