// An HTTP/1.1 server on one thread, in plaintext: the transport of the doors beside gRPC.
//
// Connections are waited for with epoll and cost about a kilobyte each while they are idle. What a stranger can make
// the server hold is bounded: connections in number, and each of them in bytes and in time. With as many connections as
// it may have, the server closes the one that has waited longest, so that a new one, such as a probe's, is always
// served.
//
// Requests are read and written by Boost.Beast (docs/decisions/037-one-http-server.md).
#ifndef ATTEND_SERVER_HTTP_HTTP_SERVER_H_
#define ATTEND_SERVER_HTTP_HTTP_SERVER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace attend::server {

struct HttpRequest {
  std::string_view method;  // `GET`, `POST` or any other word.
  std::string_view path;    // Without the query, as it was sent: `/metrics`.
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string allow;  // The header of that name, for 405; empty: none.
  std::string body;
};

class HttpServer {
 public:
  using Duration = std::chrono::steady_clock::duration;
  // Answers one request, on the server's thread: others wait meanwhile. HEAD comes as GET; its body is left out. Must
  // not throw.
  using Handler = std::function<HttpResponse(const HttpRequest&)>;

  struct Options {
    std::string flag;    // The flag that gave `listen`, for errors: `--admin-listen`.
    std::string listen;  // `host:port`; port 0 lets the system choose.
    std::size_t max_connections = 256;
    std::size_t max_header_bytes = 8 << 10;             // Of a request without its body; more: 431.
    std::size_t max_body_bytes = 0;                     // More: 413; a body in chunks: 411.
    Duration idle_timeout = std::chrono::seconds(90);   // From a connection's start or last answer to the next request.
    Duration read_timeout = std::chrono::seconds(5);    // From a request's first byte to its last.
    Duration write_timeout = std::chrono::seconds(10);  // For a response.
    // Called on the server's thread every `tick_interval`. Empty: nothing is. Must not throw.
    std::function<void()> on_tick;
    Duration tick_interval = std::chrono::milliseconds(100);
  };

  // Binds and serves until the object's end. Errors: UNAVAILABLE naming the address that cannot be bound, and why.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const Options& options, Handler handler);

  // Closes all connections. A handler that runs is waited for.
  virtual ~HttpServer() = default;

  // What `listen` stands for, as CallEngine::addresses, and the port.
  virtual const std::string& address() const = 0;
  virtual int port() const = 0;
  // Open at the moment. Thread-safe.
  virtual std::int64_t connections() const = 0;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_HTTP_HTTP_SERVER_H_
