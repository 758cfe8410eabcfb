// The page: files of server/http/page/, compiled into the binary (cmake/EmbedPage.cmake).
//
// Pure; may be called concurrently.
#ifndef ATTEND_SERVER_CONNECT_PAGE_H_
#define ATTEND_SERVER_CONNECT_PAGE_H_

#include <cstddef>
#include <string_view>

#include "server/http/http_message.h"

namespace attend::server {

struct PageFile {
  std::string_view path;  // `/index.html`.
  std::string_view content_type;
  std::string_view etag;  // In quotes.
  std::string_view bytes;
};

// All of them, in the order of their paths; generated.
extern const PageFile kPageFiles[];
extern const std::size_t kPageFileCount;

// Null when there is none; `/` is `/index.html`.
const PageFile* FindPageFile(std::string_view path);

// The answer to GET, or 405, or 304 where the browser has the file.
HttpResponse ServePageFile(const PageFile& file, const HttpRequest& request);

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONNECT_PAGE_H_
