// One unary call over HTTP: from its header to its answer, by the same request method as a gRPC call's.
//
// Threads. The HTTP server's thread calls what HttpCall has; Finish may be called from any.
//
// Lifetime. The connection holds a reference until the answer is written or the peer is gone, a compute thread another
// while it works; the last one to go deletes the call, and gives back its part of the memory budget.
#ifndef ATTEND_SERVER_CONNECT_CONNECT_CALL_H_
#define ATTEND_SERVER_CONNECT_CONNECT_CALL_H_

#include <google/protobuf/descriptor.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/connect/body_quota.h"
#include "server/http/http_service.h"
#include "server/identity/authenticator.h"
#include "server/identity/trusted_proxies.h"
#include "server/rpc/call.h"
#include "server/rpc/inbound_call.h"
#include "server/rpc/memory_budget.h"
#include "server/rpc/request_run.h"

namespace attend::server {

// What all calls of a door share. Outlives every call.
struct ConnectServices {
  const RequestServices* requests = nullptr;
  Authenticator* authenticator = nullptr;  // Null: everybody everything.
  bool mutual_tls = false;                 // Connections show verified certificates.
  TrustedProxies proxies;
  std::size_t max_json_bytes = 0;
  absl::Duration body_timeout = absl::InfiniteDuration();  // For errors: the HTTP server waits.
  // As those of CallEngine::Options.
  std::function<void(const InboundCall&)> on_started;
  std::function<void(const InboundCall&, const absl::Status&)> on_denied;
  std::function<void(const InboundCall&, const absl::Status&)> on_finished;
  std::atomic<bool> draining{false};
  std::atomic<int> calls{0};  // That are not deleted.
  BodyQuota bodies;           // That are being read; the HTTP server's thread's.
};

// A method that is served, in both forms.
struct ConnectMethod {
  const MethodEntry* entry = nullptr;
  RequestMethod json;
  const google::protobuf::Descriptor* response = nullptr;
};

class ConnectCall final : public InboundCall, public HttpCall, public RequestRun::Owner {
 public:
  ~ConnectCall() override;

  // What becomes of a request whose header has come: an answer that refuses it, or a call that wants its body.
  // `method`: null when the server has none of that name. `headers`: for every answer.
  static HttpService::Outcome Begin(ConnectServices& services, const ConnectMethod* method, HttpRequest request,
                                    HttpHeaders headers, const HttpReply& reply);

  std::chrono::system_clock::time_point deadline() const override { return deadline_; }
  const std::string& method() const override { return request_.path; }
  std::string peer() const override { return request_.peer; }
  std::string_view Metadata(const char* name) const override { return request_.Header(name); }

  std::optional<HttpResponse> OnBodyGrows(std::size_t bytes) override;
  void OnBody(grpc::ByteBuffer& body) override;
  std::optional<std::chrono::system_clock::time_point> watched_deadline() const override;
  void OnDeadline() override;
  void OnGone() override;
  HttpResponse OnUnreadableBody(BodyFault fault) override;
  std::size_t max_body_bytes() const override { return max_body_bytes_; }

  void OnResponse(const grpc::ByteBuffer& response, Clock::time_point now) override;
  void OnError(const absl::Status& status) override;

 private:
  ConnectCall(ConnectServices& services, const ConnectMethod* method, HttpRequest request, HttpHeaders headers,
              const HttpReply& reply);
  void Delete() override { delete this; }

  // Everything that can be said before the body is read.
  absl::Status Check();
  absl::Status CheckCallerOf(const MethodEntry& entry);
  absl::Status CheckLength() const;
  absl::Status TooLong(std::uint64_t bytes) const;
  absl::Status WhyUnreadable(BodyFault fault) const;
  // Errors: MemoryBudget's.
  absl::Status GrowBody(double memory);
  void ReleaseBody();
  // For the one thread that ends the call: tells those who watch, and makes the answer.
  bool BeginFinish() { return !finished_.exchange(true, std::memory_order_acq_rel); }
  absl::StatusOr<HttpBody> BodyOf(const grpc::ByteBuffer& response);
  HttpResponse Refusal(const absl::Status& status);
  HttpResponse WithHeaders(HttpResponse answer) const;

  ConnectServices& services_;
  const ConnectMethod* const served_;
  const HttpRequest request_;
  const HttpHeaders headers_;
  const HttpReply reply_;
  const bool json_;
  std::size_t max_body_bytes_ = 0;
  std::chrono::system_clock::time_point deadline_ = std::chrono::system_clock::time_point::max();
  MemoryBudget::Reservation body_memory_;
  bool running_ = false;  // The body has come.
  std::atomic<bool> finished_{false};
  std::optional<UnaryRequest> run_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONNECT_CONNECT_CALL_H_
