#include "server/admin_door.h"

#include <string>
#include <utility>

namespace attend::server {
namespace {

constexpr char kTextFormat[] = "text/plain; version=0.0.4; charset=utf-8";

HttpResponse Unavailable(const char* why) { return {.status = 503, .body = why}; }

}  // namespace

absl::StatusOr<std::unique_ptr<AdminDoor>> AdminDoor::Open(const std::string& listen,
                                                           std::function<std::string()> loading_metrics) {
  std::unique_ptr<AdminDoor> door(new AdminDoor(std::move(loading_metrics)));
  HttpServer::Options options{.flag = "--admin-listen", .listen = listen};
  options.on_tick = [door = door.get()] { door->Tick(); };
  auto http =
      HttpServer::Start(options, [door = door.get()](const HttpRequest& request) { return door->Answer(request); });
  if (!http.ok()) return http.status();
  door->http_ = *std::move(http);
  return door;
}

void AdminDoor::Show(View view) {
  const MutexLock lock(mu_);
  view_ = std::move(view);
}

HttpResponse AdminDoor::Answer(const HttpRequest& request) {
  const bool known = request.path == "/livez" || request.path == "/readyz" || request.path == "/metrics";
  if (!known) return {.status = 404, .body = "this door has /metrics, /livez and /readyz\n"};
  if (request.method != "GET") return {.status = 405, .allow = "GET, HEAD", .body = "only GET and HEAD\n"};
  if (request.path == "/livez") return {.body = "ok\n"};
  const MutexLock lock(mu_);
  return request.path == "/readyz" ? Ready() : Metrics();
}

HttpResponse AdminDoor::Ready() const {
  if (!view_.has_value()) return Unavailable("loading\n");
  return view_->ready() ? HttpResponse{.body = "ok\n"} : Unavailable("draining\n");
}

HttpResponse AdminDoor::Metrics() const {
  return {.content_type = kTextFormat, .body = view_.has_value() ? view_->metrics() : loading_metrics_()};
}

void AdminDoor::Tick() {
  const MutexLock lock(mu_);
  if (view_.has_value()) view_->on_tick();
}

}  // namespace attend::server
