// The open connections of an HttpServer, and which of them goes when another wants to come.
//
// One site, an address or the first 64 bits of an IPv6 one, may have all connections. When one with less than a quarter
// of them wants another, the site that has the most loses its newest, if it has more than a quarter: one that waits for
// its request to be whole, or else one whose request is being answered. A site with a quarter or more loses its own one
// that has waited longest. Where no site has more than its quarter, the one goes that has waited longest of all.
//
// Thread-compatible: the server's thread's own.
#ifndef ATTEND_SERVER_HTTP_HTTP_CONNECTIONS_H_
#define ATTEND_SERVER_HTTP_HTTP_CONNECTIONS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "server/http/http_connection.h"
#include "server/rpc/shares.h"

namespace attend::server {

class HttpConnections {
 public:
  explicit HttpConnections(std::size_t most) : most_(most), share_(std::max<std::size_t>(most / kShares, 1)) {}

  // Whether there may be one more of `site`, for which one may have been closed. Empty: a site without a share, because
  // it speaks for many callers.
  bool MakeRoomFor(const std::string& site);
  void Add(std::shared_ptr<HttpConnection> connection, std::string site);
  // Its request is being answered; it waits for the next one.
  void SetBusy(HttpConnection& connection);
  void SetWaiting(HttpConnection& connection);
  void Remove(HttpConnection& connection);
  void CloseAll();
  // Closes those whose answers have been on their way for longer than `patience`.
  void CloseStalled(HttpServer::Duration patience);
  std::size_t size() const { return waiting_.size() + busy_.size(); }

 private:
  using List = std::list<std::shared_ptr<HttpConnection>>;

  // Null: none.
  HttpConnection* Victim(const std::string& site) const;
  // Of those that wait; null: of all sites.
  HttpConnection* LongestWaiting(const std::string* site) const;
  // The site with the most connections, more than a share; null: there is none.
  const std::string* Largest() const;

  const std::size_t most_;
  const std::size_t share_;
  List waiting_;                                          // Those that have waited longest come first.
  List busy_;                                             // Those whose requests are being answered.
  absl::flat_hash_map<std::string, std::size_t> counts_;  // By site.
  std::int64_t next_number_ = 0;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_HTTP_HTTP_CONNECTIONS_H_
