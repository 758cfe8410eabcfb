#include "server/http/http_peer.h"

#include <boost/asio/ip/address.hpp>
#include <boost/system/error_code.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace attend::server {

std::optional<HttpPeer> PeerOf(const boost::asio::ip::tcp::socket& socket) {
  boost::system::error_code error;
  const boost::asio::ip::tcp::endpoint peer = socket.remote_endpoint(error);
  if (error) return std::nullopt;
  boost::asio::ip::address address = peer.address();
  if (address.is_v6() && address.to_v6().is_v4_mapped()) {
    address = boost::asio::ip::make_address_v4(boost::asio::ip::v4_mapped, address.to_v6());
  }
  const std::string host = address.to_string(error);
  if (error) return std::nullopt;
  std::string name = address.is_v4() ? absl::StrCat("ipv4:", host, ":", peer.port())
                                     : absl::StrCat("ipv6:%5B", host, "%5D:", peer.port());
  return HttpPeer{std::move(name), host.substr(0, host.find('%'))};
}

}  // namespace attend::server
