// One gRPC call in frames written by hand, for what no client library sends.
//
// Thread-compatible.
#ifndef ATTEND_TESTS_SUPPORT_RAW_HTTP2_CALL_H_
#define ATTEND_TESTS_SUPPORT_RAW_HTTP2_CALL_H_

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace attend::testing {

class RawHttp2Call {
 public:
  using Headers = std::vector<std::pair<std::string, std::string>>;

  // Sends `headers`, beside those that every call has, and `body`, shorter than 16 KiB; ends the request if `body` is a
  // whole message. `resets`: cancels the call in the same breath. The connection closes with this object.
  RawHttp2Call(int port, const std::string& path, const Headers& headers, const std::string& body, bool resets = false)
      : connection_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in server{};
    server.sin_family = AF_INET;
    server.sin_port = htons(static_cast<std::uint16_t>(port));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(connection_, reinterpret_cast<sockaddr*>(&server), sizeof(server)), 0);
    const timeval patience{.tv_sec = 20, .tv_usec = 0};
    setsockopt(connection_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    std::string block = Header(":method", "POST") + Header(":scheme", "http") + Header(":path", path) +
                        Header(":authority", "test") + Header("te", "trailers") +
                        Header("content-type", "application/grpc");
    for (const auto& [name, value] : headers) block += Header(name, value);
    const std::string bytes = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(4, 0, 0, "") + Frame(1, 4, 1, block) +
                              Frame(0, IsWhole(body), 1, body) +
                              (resets ? Frame(3, 0, 1, std::string("\0\0\0\x08", 4)) : "");
    EXPECT_EQ(write(connection_, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  RawHttp2Call(const RawHttp2Call&) = delete;
  RawHttp2Call& operator=(const RawHttp2Call&) = delete;
  ~RawHttp2Call() { close(connection_); }

  // Reads until `text` has come; false when it has not in 20 s.
  bool Receives(const std::string& text) {
    char bytes[4096];
    while (received_.find(text) == std::string::npos) {
      const ssize_t count = read(connection_, bytes, sizeof(bytes));
      if (count <= 0) return false;
      received_.append(bytes, static_cast<std::size_t>(count));
    }
    return true;
  }

 private:
  static std::string Frame(char type, char flags, char stream, const std::string& payload) {
    const std::string length = {0, static_cast<char>(payload.size() >> 8), static_cast<char>(payload.size())};
    return length + type + flags + std::string(3, '\0') + stream + payload;
  }
  // As HPACK's literal without indexing.
  static std::string Header(const std::string& name, const std::string& value) {
    return std::string(1, '\0') + static_cast<char>(name.size()) + name + static_cast<char>(value.size()) + value;
  }
  // Behind five bytes, of which the last two can say its length.
  static bool IsWhole(const std::string& body) {
    const auto byte = [&body](std::size_t i) { return static_cast<unsigned char>(body[i]); };
    return body.size() >= 5 && body.size() - 5 == static_cast<std::size_t>(byte(3)) * 256 + byte(4);
  }

  const int connection_;
  std::string received_;
};

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_RAW_HTTP2_CALL_H_
