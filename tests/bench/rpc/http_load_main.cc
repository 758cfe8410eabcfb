// attend-http-load: calls one method of the HTTP door in a closed loop and prints what it saw as JSON, as attend-load
// does for gRPC:
//
//   attend-http-load --target 127.0.0.1:8080 --method /attend.v1.AttentionService/Attend --request request.bin
//                    [--type application/proto] [--concurrency 1] [--seconds 5]
//
// Each of `concurrency` connections has one call in flight; all are served by one thread with poll. Latencies are in
// milliseconds. Prints {"rps": ..., "p50": ..., "p99": ..., "calls": ..., "failed": ...}.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void Fail(const std::string& why) {
  std::fprintf(stderr, "attend-http-load: %s\n", why.c_str());
  std::exit(1);
}

struct Connection {
  int fd = -1;
  std::size_t sent = 0;
  std::string answer;
  Clock::time_point start;
};

int Connect(const std::string& target) {
  const std::size_t colon = target.rfind(':');
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(target.substr(colon + 1))));
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (inet_pton(AF_INET, target.substr(0, colon).c_str(), &address.sin_addr) != 1 ||
      connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    Fail("cannot connect to " + target);
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

// The whole length of the answer; 0 while its header is incomplete.
std::size_t LengthOf(const std::string& answer) {
  const std::size_t end = answer.find("\r\n\r\n");
  if (end == std::string::npos) return 0;
  // Envoy writes names in lower case.
  for (const char* name : {"\r\nContent-Length: ", "\r\ncontent-length: "}) {
    const std::size_t at = answer.find(name);
    if (at < end) return end + 4 + std::stoul(answer.substr(at + std::strlen(name)));
  }
  Fail("an answer without a length");
}

class Load {
 public:
  Load(std::string request, const std::string& target, int concurrency) : request_(std::move(request)) {
    connections_.resize(static_cast<std::size_t>(concurrency));
    for (Connection& connection : connections_) connection.fd = Connect(target);
  }

  void Run(Clock::duration time) {
    std::vector<pollfd> polled;
    for (Connection& connection : connections_) {
      Begin(connection);
      polled.push_back({.fd = connection.fd, .events = POLLIN, .revents = 0});
    }
    const Clock::time_point start = Clock::now();
    while (Clock::now() - start < time) {
      for (std::size_t i = 0; i < polled.size(); ++i) {
        const bool unsent = connections_[i].sent < request_.size();
        polled[i].events = static_cast<short>(unsent ? POLLIN | POLLOUT : POLLIN);
      }
      if (poll(polled.data(), polled.size(), 60'000) <= 0) Fail("no answer within a minute");
      for (std::size_t i = 0; i < polled.size(); ++i) {
        if ((polled[i].revents & POLLOUT) != 0) Send(connections_[i]);
        if ((polled[i].revents & ~POLLOUT) != 0) Receive(connections_[i]);
      }
    }
    seconds_ = std::chrono::duration<double>(Clock::now() - start).count();
  }

  void Print() {
    if (latencies_.empty()) Fail("no call was answered");
    std::sort(latencies_.begin(), latencies_.end());
    const auto at = [this](double part) {
      return latencies_[static_cast<std::size_t>(part * static_cast<double>(latencies_.size() - 1))];
    };
    std::printf("{\"rps\": %.1f, \"p50\": %.4f, \"p99\": %.4f, \"calls\": %zu, \"failed\": %ld}\n",
                static_cast<double>(latencies_.size()) / seconds_, at(0.5), at(0.99), latencies_.size(), failed_);
  }

 private:
  void Begin(Connection& connection) {
    connection.sent = 0;
    connection.answer.clear();
    connection.start = Clock::now();
    Send(connection);
  }

  void Send(Connection& connection) {
    const ssize_t sent = send(connection.fd, request_.data() + connection.sent, request_.size() - connection.sent,
                              MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) connection.sent += static_cast<std::size_t>(sent);
  }

  void Receive(Connection& connection) {
    char bytes[64 << 10];
    const ssize_t size = recv(connection.fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (size <= 0) Fail("the connection ended");
    connection.answer.append(bytes, static_cast<std::size_t>(size));
    const std::size_t length = LengthOf(connection.answer);
    if (length == 0 || connection.answer.size() < length) return;
    latencies_.push_back(std::chrono::duration<double, std::milli>(Clock::now() - connection.start).count());
    if (connection.answer.rfind("HTTP/1.1 200", 0) != 0) ++failed_;
    Begin(connection);
  }

  const std::string request_;
  std::vector<Connection> connections_;
  std::vector<double> latencies_;
  double seconds_ = 0;
  long failed_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, std::string> flags = {{"--type", "application/proto"},
                                              {"--concurrency", "1"},
                                              {"--seconds", "5"},
                                              {"--method", ""},
                                              {"--target", ""},
                                              {"--request", ""}};
  for (int i = 1; i + 1 < argc; i += 2) {
    if (flags.count(argv[i]) == 0) Fail(std::string("no such flag: ") + argv[i]);
    flags[argv[i]] = argv[i + 1];
  }
  std::ifstream file(flags["--request"], std::ios::binary);
  if (!file) Fail("cannot read " + flags["--request"]);
  const std::string body{std::istreambuf_iterator<char>(file), {}};
  const std::string request = "POST " + flags["--method"] + " HTTP/1.1\r\nHost: " + flags["--target"] +
                              "\r\nContent-Type: " + flags["--type"] +
                              "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  Load load(request, flags["--target"], std::stoi(flags["--concurrency"]));
  const double seconds = std::stod(flags["--seconds"]);
  load.Run(std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds)));
  load.Print();
  return 0;
}
