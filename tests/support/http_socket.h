// HttpServer as strangers meet it: connections of a test's own, and a server that answers with what it was asked.
#ifndef ATTEND_TESTS_SUPPORT_HTTP_SOCKET_H_
#define ATTEND_TESTS_SUPPORT_HTTP_SOCKET_H_

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "server/http/http_server.h"

namespace attend::server {

inline constexpr int kPatienceMs = 20'000;  // Only a hang reaches it.

// A connection of the test's own, blocking.
class Socket {
 public:
  // `from`: its own address.
  explicit Socket(int port, const char* host = "127.0.0.1", const char* from = "127.0.0.1")
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const sockaddr_in own = Address(from, 0), address = Address(host, port);
    bind(fd_, reinterpret_cast<const sockaddr*>(&own), sizeof own);
    connected_ = connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)), connected_(other.connected_) {}
  Socket& operator=(Socket&&) = delete;
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }

  bool connected() const { return connected_; }
  void Send(const std::string& bytes) const { (void)send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }

  // Ends it by a reset.
  void Reset() {
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(std::exchange(fd_, -1));
  }

  // All bytes until the peer closes; "HANG" at the end when it does not.
  std::string ReadToEnd() const {
    std::string all;
    for (;;) {
      const std::string piece = Read();
      all += piece;
      if (piece.empty() || piece == "HANG") return all;
    }
  }
  // Bytes until `end` is the end of them.
  std::string ReadUntil(const std::string& end) const {
    std::string all;
    while (all.size() < end.size() || all.compare(all.size() - end.size(), end.size(), end) != 0) {
      const std::string piece = Read();
      all += piece;
      if (piece.empty() || piece == "HANG") break;
    }
    return all;
  }

 private:
  static sockaddr_in Address(const char* host, int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    inet_pton(AF_INET, host, &address.sin_addr);
    return address;
  }
  std::string Read() const {
    pollfd waited{.fd = fd_, .events = POLLIN, .revents = 0};
    if (poll(&waited, 1, kPatienceMs) != 1) return "HANG";
    char bytes[4096];
    const ssize_t size = recv(fd_, bytes, sizeof bytes, 0);
    return size <= 0 ? std::string() : std::string(bytes, static_cast<std::size_t>(size));
  }

  int fd_;
  bool connected_ = false;
};

inline HttpServer::Options SmallOptions() {
  HttpServer::Options options;
  options.flag = "--test-listen";
  options.listen = "127.0.0.1:0";
  return options;
}

// Answers with what was asked.
inline HttpResponse Echo(const HttpRequest& request) {
  if (request.path == "/big") return {.body = std::string(1 << 20, 'x')};
  if (request.path == "/headers") return {.headers = {{"x-one", "1"}, {"x-one", "2"}, {"cache-control", "no-cache"}}};
  return {.body = std::string(request.method) + " " + std::string(request.path) + ";"};
}

inline std::unique_ptr<HttpServer> Start(const HttpServer::Options& options) {
  auto server = HttpServer::Start(options, Echo);
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

inline std::string Get(const std::string& path) { return "GET " + path + " HTTP/1.1\r\nHost: test\r\n\r\n"; }

// Whether the server has answered on this connection.
inline bool IsServed(const Socket& socket) {
  socket.Send(Get("/served"));
  return socket.ReadUntil("GET /served;").find("200 OK") != std::string::npos;
}

}  // namespace attend::server

#endif  // ATTEND_TESTS_SUPPORT_HTTP_SOCKET_H_
