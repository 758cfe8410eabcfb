// Which requests may come in by their Host and Origin, so that no page of another site, and no name that somebody else
// points at this machine (DNS rebinding), makes the server compute for a browser.
//
// Immutable after construction, so that it may be read concurrently.
#ifndef ATTEND_SERVER_CONNECT_ORIGIN_CHECK_H_
#define ATTEND_SERVER_CONNECT_ORIGIN_CHECK_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/http/http_message.h"

namespace attend::server {

class OriginCheck {
 public:
  // `hosts`: names that Host may have beside localhost and loopback addresses (--http-host); `origins`: other sites
  // whose pages may call (--http-allow-origin).
  OriginCheck(std::vector<std::string> hosts, std::vector<std::string> origins);

  // The answer to a request that must not come in, or to a browser's question before one (a CORS preflight); nothing
  // for a request that may come in. Then `headers` gets what its answer must say to the browser.
  std::optional<HttpResponse> Answer(const HttpRequest& request, HttpHeaders& headers) const;

 private:
  bool IsOurHost(std::string_view host) const;
  bool MayCall(std::string_view origin) const;

  std::vector<std::string> hosts_;
  std::vector<std::string> origins_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONNECT_ORIGIN_CHECK_H_
