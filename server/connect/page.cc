#include "server/connect/page.h"

#include <algorithm>
#include <string>

namespace attend::server {
namespace {

// The page loads and calls nothing but this server; pictures may also be of its own making.
constexpr char kContentSecurityPolicy[] =
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'";

}  // namespace

const PageFile* FindPageFile(std::string_view path) {
  if (path == "/") path = "/index.html";
  const PageFile* const end = kPageFiles + kPageFileCount;
  const PageFile* const found =
      std::find_if(kPageFiles, end, [path](const PageFile& file) { return file.path == path; });
  return found == end ? nullptr : found;
}

HttpResponse ServePageFile(const PageFile& file, const HttpRequest& request) {
  if (request.method != "GET") return {.status = 405, .allow = "GET, HEAD", .body = "only GET and HEAD\n"};
  HttpResponse answer{.content_type = std::string(file.content_type)};
  answer.headers = {{"cache-control", "no-cache"},
                    {"etag", std::string(file.etag)},
                    {"content-security-policy", kContentSecurityPolicy},
                    {"referrer-policy", "no-referrer"}};
  if (request.Header("if-none-match") == file.etag) {
    answer.status = 304;
    answer.content_type.clear();
  } else {
    answer.body = HttpBody::OfStatic(file.bytes);
  }
  return answer;
}

}  // namespace attend::server
