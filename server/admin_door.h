// The door for those who operate the server: /metrics, /livez and /readyz over HTTP/1.1 on --admin-listen, and nothing
// else. In plaintext and without identity: what it says is no secret, but it is not for strangers.
//
//   /livez    200 as long as the process serves this door
//   /readyz   200, or 503 with `loading` or `draining`
//   /metrics  Prometheus' text format; `attend_ready 0` and the process's own while the server loads
//
// GET and HEAD alone (else 405); every other path is 404. It is opened before layers are loaded and closed last, so
// that a probe always has an answer; and a scrape, which would take the server for one that is down.
#ifndef ATTEND_SERVER_ADMIN_DOOR_H_
#define ATTEND_SERVER_ADMIN_DOOR_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "core/base/mutex.h"
#include "server/http/http_server.h"

namespace attend::server {

// Thread-safe.
class AdminDoor {
 public:
  // What the door shows of a server. Each is called on the door's thread alone, and must not throw.
  struct View {
    std::function<bool()> ready;
    std::function<std::string()> metrics;
    std::function<void()> on_tick;  // Ten times a second.
  };

  // Opens the door at `listen`; the server is loading, and `loading_metrics`, called as View's, gives its /metrics.
  // Errors: UNAVAILABLE for an address that cannot be bound.
  static absl::StatusOr<std::unique_ptr<AdminDoor>> Open(const std::string& listen,
                                                         std::function<std::string()> loading_metrics);

  // The server has loaded. What `view` uses must outlive the door.
  void Show(View view) ABSL_LOCKS_EXCLUDED(mu_);

  const std::string& address() const { return http_->address(); }
  int port() const { return http_->port(); }
  std::int64_t connections() const { return http_->connections(); }

 private:
  explicit AdminDoor(std::function<std::string()> loading_metrics) : loading_metrics_(std::move(loading_metrics)) {}
  HttpResponse Answer(const HttpRequest& request) ABSL_LOCKS_EXCLUDED(mu_);
  HttpResponse Ready() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  HttpResponse Metrics() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Tick() ABSL_LOCKS_EXCLUDED(mu_);

  const std::function<std::string()> loading_metrics_;
  Mutex mu_;
  std::optional<View> view_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<HttpServer> http_;  // Destroyed first, which ends the thread that uses the others.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_ADMIN_DOOR_H_
