// An HTTP/1.1 server on one thread, in plaintext or over TLS: the transport of the doors beside gRPC.
//
// Connections are waited for with epoll and cost about a kilobyte each while they are idle. What a stranger can make
// the server hold is bounded: connections in number, and each of them in bytes and in time. With as many connections as
// it may have, the server closes one for a new one, such as a probe's (http_connections.h says which); where none may
// go, the new one is closed.
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

#include "absl/status/statusor.h"
#include "server/http/http_message.h"
#include "server/http/http_service.h"
#include "server/identity/trusted_proxies.h"
#include "server/rpc/memory_budget.h"

namespace attend::server {

class HttpTls;

class HttpServer {
 public:
  using Duration = std::chrono::steady_clock::duration;
  // Answers one request at once, on the server's thread: others wait meanwhile. Must not throw.
  using Handler = std::function<HttpResponse(const HttpRequest&)>;

  struct Options {
    std::string flag;    // The flag that gave `listen`, for errors: `--admin-listen`.
    std::string listen;  // `host:port`; port 0 lets the system choose.
    std::size_t max_connections = 256;
    std::size_t max_header_bytes = 8 << 10;  // Of a request without its body; more: 431.
    bool bodies = false;  // Whether requests may have bodies, which an HttpCall bounds; else 413, or 411 for chunks.
    std::size_t first_read_bytes = 512;  // The first read of a request asks for no more: an idle connection is small.
    Duration idle_timeout = std::chrono::seconds(90);  // From a connection's start or last answer to the next request.
    // An older connection ends: at once while it waits for a request, else after the answer to the one that has begun.
    Duration max_age = std::chrono::hours(24 * 365);
    Duration read_timeout = std::chrono::seconds(5);       // From a request's first byte to its last.
    Duration write_timeout = std::chrono::seconds(10);     // For a response.
    Duration body_timeout = std::chrono::seconds(5);       // From a request's header to the end of its body.
    Duration handshake_timeout = std::chrono::seconds(5);  // Of TLS.
    // Beside the write timeout, an answer may take the time that its bytes need at this rate.
    std::size_t min_bytes_per_second = std::size_t{1} << 40;
    std::shared_ptr<const HttpTls> tls = nullptr;  // Null: plaintext.
    // While others are refused for want of this budget, an answer has a sixth of the write timeout, whatever its size.
    // Null: nobody is. Must outlive the server.
    const MemoryBudget* memory = nullptr;
    TrustedProxies proxies = {};  // Whose connections have no share: they are many callers'.
    // Called on the server's thread every `tick_interval`. Empty: nothing is. Must not throw.
    std::function<void()> on_tick;
    Duration tick_interval = std::chrono::milliseconds(100);
  };

  // Binds and serves until the object's end. Errors: UNAVAILABLE naming the address that cannot be bound, and why.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const Options& options, Handler handler);
  // The same for a service, which must outlive the server.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const Options& options, HttpService& service);

  // Closes all connections. A handler that runs is waited for; an HttpCall that another thread still works for must
  // be gone.
  virtual ~HttpServer() = default;

  // What `listen` stands for, as CallEngine::addresses, and the port.
  virtual const std::string& address() const = 0;
  virtual int port() const = 0;
  // Open at the moment. Thread-safe.
  virtual std::int64_t connections() const = 0;
  // Closes all connections, whose calls hear that they are gone, and listens no more. Thread-safe; returns at once.
  virtual void Stop() = 0;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_HTTP_HTTP_SERVER_H_
