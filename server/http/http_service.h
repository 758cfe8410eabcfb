// What answers the requests of an HttpServer.
//
// A request is shown to the service as soon as its header has come. The service either answers at once or makes an
// HttpCall, which is told of the body's memory as it grows, then given the body, and answers by its HttpReply, from
// any thread.
#ifndef ATTEND_SERVER_HTTP_HTTP_SERVICE_H_
#define ATTEND_SERVER_HTTP_HTTP_SERVICE_H_

#include <grpcpp/support/byte_buffer.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <variant>

#include "server/http/http_message.h"

namespace attend::server {

class HttpConnection;

// Why a body is read no further.
enum class BodyFault : std::uint8_t { kTooLong, kMalformed, kLate };

// The way back for one request. May be used from any thread as long as the server lives.
class HttpReply {
 public:
  HttpReply(std::weak_ptr<HttpConnection> connection, std::uint64_t request)
      : connection_(std::move(connection)), request_(request) {}

  // Only the first of several has an effect; nothing happens when the peer is gone.
  void Send(HttpResponse answer) const;

 private:
  std::weak_ptr<HttpConnection> connection_;
  std::uint64_t request_;
};

// All but the destructor are called on the server's thread and must neither block nor throw.
class HttpCall {
 public:
  virtual ~HttpCall() = default;

  // The body will take `bytes` of memory from now on, more than before. Returns an answer when that is too much; the
  // body is read no further then.
  virtual std::optional<HttpResponse> OnBodyGrows(std::size_t bytes) = 0;
  // The whole body, which may be moved from.
  virtual void OnBody(grpc::ByteBuffer& body) = 0;
  // Nothing when there is none. At it, OnDeadline is called, unless the call has been answered; it may answer.
  virtual std::optional<std::chrono::system_clock::time_point> watched_deadline() const = 0;
  virtual void OnDeadline() = 0;
  // The connection has ended before the answer was written. The last that a call hears.
  virtual void OnGone() = 0;
  // The body is longer than max_body_bytes, in no chunks as HTTP has them, or not there when its time is up: returns
  // the answer, the last of the call.
  virtual HttpResponse OnUnreadableBody(BodyFault fault) = 0;
  virtual std::size_t max_body_bytes() const = 0;
};

class HttpService {
 public:
  // The server holds a call until its answer is written, or the peer is gone.
  using Outcome = std::variant<HttpResponse, std::shared_ptr<HttpCall>>;

  virtual ~HttpService() = default;
  virtual Outcome OnHeader(HttpRequest request, const HttpReply& reply) = 0;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_HTTP_HTTP_SERVICE_H_
