#include "server/connect/origin_check.h"

#include <arpa/inet.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace attend::server {
namespace {

// What a page of another origin may send beside the body: the headers of docs/http.md.
constexpr char kAllowedHeaders[] =
    "attend-cost-flops, authorization, connect-protocol-version, connect-timeout-ms, content-encoding, content-type, "
    "traceparent, x-request-id";
constexpr char kPreflightSeconds[] = "7200";

std::string Lower(std::string_view text) { return absl::AsciiStrToLower(absl::string_view(text.data(), text.size())); }

// `host:port` without the port; brackets stay.
std::string_view WithoutPort(std::string_view host) {
  const std::size_t colon = host.rfind(':');
  const std::size_t bracket = host.rfind(']');
  if (colon == std::string_view::npos || (bracket != std::string_view::npos && bracket > colon)) return host;
  return host.substr(0, colon);
}

bool IsLoopbackName(const std::string& name) {
  in_addr address{};
  if (name == "localhost" || name == "[::1]") return true;
  return inet_pton(AF_INET, name.c_str(), &address) == 1 && (ntohl(address.s_addr) >> 24) == 127;
}

HttpResponse Forbidden(const char* why) { return {.status = 403, .body = why}; }

}  // namespace

OriginCheck::OriginCheck(std::vector<std::string> hosts, std::vector<std::string> origins)
    : hosts_(std::move(hosts)), origins_(std::move(origins)) {
  for (std::string& host : hosts_) host = Lower(host);
  for (std::string& origin : origins_) origin = Lower(origin);
}

bool OriginCheck::IsOurHost(std::string_view host) const {
  const std::string name = Lower(WithoutPort(host));
  return IsLoopbackName(name) || std::find(hosts_.begin(), hosts_.end(), name) != hosts_.end();
}

bool OriginCheck::MayCall(std::string_view origin) const {
  return std::find(origins_.begin(), origins_.end(), Lower(origin)) != origins_.end();
}

std::optional<HttpResponse> OriginCheck::Answer(const HttpRequest& request, HttpHeaders& headers) const {
  const std::string_view host = request.Header("host");
  if (!IsOurHost(host)) return Forbidden("this server has no such name; --http-host gives it one\n");
  if (!origins_.empty()) headers.emplace_back("vary", "origin");
  if (request.CountHeader("origin") == 0) return std::nullopt;
  const std::string_view origin = request.Header("origin");
  const std::string ours =
      Lower(absl::StrCat(request.encrypted ? "https://" : "http://", absl::string_view(host.data(), host.size())));
  const bool is_same = Lower(origin) == ours && request.CountHeader("origin") == 1;
  if (is_same && request.method != "OPTIONS") return std::nullopt;
  if (!is_same && !MayCall(origin)) {
    return Forbidden("pages of that origin may not call; --http-allow-origin lets them\n");
  }
  headers.emplace_back("access-control-allow-origin", std::string(origin));
  headers.emplace_back("access-control-expose-headers", "server-timing");
  if (request.method != "OPTIONS") return std::nullopt;
  HttpResponse preflight{.status = 204, .content_type = "", .headers = headers};
  preflight.headers.emplace_back("access-control-allow-methods", "POST");
  preflight.headers.emplace_back("access-control-allow-headers", kAllowedHeaders);
  preflight.headers.emplace_back("access-control-max-age", kPreflightSeconds);
  return preflight;
}

}  // namespace attend::server
