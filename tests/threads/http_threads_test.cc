// The HTTP door's thread, compute threads and a drain, all at once: calls in both forms, callers who leave, and an end
// in between.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <spdlog/sinks/ostream_sink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <sstream>
#include <string>
#include <thread>

#include "attend/v1/attention_service.pb.h"
#include "server/attention_server.h"
#include "tests/support/tensor_messages.h"
#include "tests/threads/busy_engine.h"

namespace attend::testing {
namespace {

server::ServerConfig Config() {
  server::ServerConfig config;
  config.listen = {"127.0.0.1:0"};
  config.http.listen = "127.0.0.1:0";
  config.admin_listen = "127.0.0.1:0";
  config.threads = 2;
  config.polling_threads = 2;
  config.inline_flops = 1e5;
  config.drain_wait = absl::ZeroDuration();
  return config;
}

std::string Post(const std::string& type, const std::string& body) {
  return "POST /attend.v1.AttentionService/Attend HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + type +
         "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

// Sends it on a connection of its own and, unless it leaves at once, returns the first bytes of the answer.
std::string Call(int port, const std::string& request, bool leaves) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
      send(fd, request.data(), request.size(), MSG_NOSIGNAL) > 0 && !leaves) {
    char bytes[256];
    const ssize_t size = recv(fd, bytes, sizeof bytes, 0);
    answer.assign(bytes, static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  }
  close(fd);
  return answer;
}

TEST(HttpThreads, CallsCallersWhoLeaveAndADrain) {
  const std::string small = R"({"embeddings": {"shape": [2, 2], "values": [1, 0, 0, 1]}})";
  v1::AttendRequest large;
  *large.mutable_embeddings() = RandomTensor({200, 64}, 1);  // Beyond --inline-flops.
  const std::string requests[] = {Post("application/json", small), Post("application/proto", large.SerializeAsString()),
                                  Post("application/json", "{"), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"};
  std::ostringstream lines;
  server::Log log({.level = spdlog::level::debug}, std::make_shared<spdlog::sinks::ostream_sink_mt>(lines));
  auto server = server::AttentionServer::Start(Config(), log);
  ASSERT_TRUE(server.ok()) << server.status();
  const int port = (*server)->http_port();
  std::atomic<int> answered{0};
  std::thread drains([&] {
    while (answered.load() < 60) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    (*server)->Drain();
  });
  InThreads(6, [&](int thread) {
    for (int i = 0; i < 60; ++i) {
      const bool leaves = (thread + i) % 5 == 0;
      const std::string answer = Call(port, requests[(thread + i) % 4], leaves);
      if (!answer.empty()) answered.fetch_add(1);
    }
  });
  while (answered.load() < 60) answered.fetch_add(1);  // None of them came: the drain must not wait for ever.
  drains.join();
  EXPECT_GE(answered.load(), 60);
  server->reset();
}

}  // namespace
}  // namespace attend::testing
