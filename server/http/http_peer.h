// Who is at the other end of a connection.
#ifndef ATTEND_SERVER_HTTP_HTTP_PEER_H_
#define ATTEND_SERVER_HTTP_HTTP_PEER_H_

#include <boost/asio/ip/tcp.hpp>
#include <optional>
#include <string>

namespace attend::server {

struct HttpPeer {
  std::string name;  // As gRPC writes it: `ipv4:127.0.0.1:40000`.
  std::string host;  // `127.0.0.1`.
};

// Nothing when the peer has gone: what it sent before may still be read, but nobody could say whose it is.
std::optional<HttpPeer> PeerOf(const boost::asio::ip::tcp::socket& socket);

}  // namespace attend::server

#endif  // ATTEND_SERVER_HTTP_HTTP_PEER_H_
