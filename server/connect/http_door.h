// The door for browsers, curl and whoever speaks HTTP/1.1: Connect's unary calls and the page.
//
//   POST /attend.v1.AttentionService/Attend   a call, as gRPC's; application/json or application/proto
//   GET  /                                    the page
//
// A request passes OriginCheck before anything else. Methods are those of the services that were asked for and that
// have one request and one response; no call is made by GET.
#ifndef ATTEND_SERVER_CONNECT_HTTP_DOOR_H_
#define ATTEND_SERVER_CONNECT_HTTP_DOOR_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/connect/connect_call.h"
#include "server/connect/origin_check.h"
#include "server/http/http_server.h"
#include "server/rpc/call.h"
#include "server/rpc/call_engine.h"

namespace attend::server {

// Thread-safe, except that Drain is called at most once.
class HttpDoor final : public HttpService {
 public:
  struct Options {
    HttpServer::Options http;
    std::vector<std::string> hosts;     // --http-host
    std::vector<std::string> origins;   // --http-allow-origin
    std::vector<std::string> services;  // Full names: `attend.v1.AttentionService`.
    std::size_t max_json_bytes = std::size_t{16} << 20;
  };

  // Binds and answers calls; `engine` says who watches them and who may call what. All arguments must outlive the door.
  // Errors: UNAVAILABLE for an address that cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpDoor>> Open(const Options& options, const MethodTable& methods,
                                                        const RequestServices& requests,
                                                        const CallEngine::Options& engine);

  // A door that another HttpService stands before, with a server of its own: it is not bound.
  HttpDoor(const Options& options, const MethodTable& methods, const RequestServices& requests,
           const CallEngine::Options& engine);

  // Ends all calls and waits for those who compute them.
  ~HttpDoor() override;

  Outcome OnHeader(HttpRequest request, const HttpReply& reply) override;
  // OnHeader for the path of a call, behind OriginCheck. `headers`: for every answer.
  Outcome OnCall(HttpRequest request, HttpHeaders headers, const HttpReply& reply);

  // REQUIRES, until Drain: Open made the door.
  const std::string& address() const { return http_->address(); }
  int port() const { return http_->port(); }
  std::int64_t connections() const { return http_->connections(); }
  // Calls that have arrived and not ended.
  int calls() const { return calls_.calls.load(std::memory_order_acquire); }

  // From now on calls are refused with UNAVAILABLE, reason DRAINING.
  void StartDrain() { calls_.draining.store(true); }
  // Waits for the calls in flight, but no longer than `timeout`, and closes the door. REQUIRES: StartDrain was called.
  void FinishDrain(absl::Duration timeout);
  // Ends all calls now; what a second SIGTERM does meanwhile.
  void CancelAllCalls() { http_->Stop(); }

 private:
  bool WaitForCalls(absl::Duration timeout) const;

  const OriginCheck origins_;
  absl::flat_hash_map<std::string, ConnectMethod> methods_;  // By path.
  ConnectServices calls_;
  std::unique_ptr<HttpServer> http_;  // Destroyed first.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONNECT_HTTP_DOOR_H_
