// The admin door's thread among the server's: scrapes and probes while calls run on polling and compute threads, a
// drain, and an end with scrapes under way.
#include <gtest/gtest.h>
#include <spdlog/sinks/null_sink.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "attend/v1/attention_service.pb.h"
#include "server/attention_server.h"
#include "tests/support/http_get.h"
#include "tests/support/tensor_messages.h"
#include "tests/threads/busy_engine.h"

namespace attend::testing {
namespace {

using fake_grpc::CallUnary;

constexpr int kCallers = 4;
constexpr int kCallsEach = 50;

// The value of the series whose line starts with `series`; -1 when there is none.
double Value(const std::string& page, const std::string& series) {
  const std::size_t at = page.find("\n" + series + " ");
  return at == std::string::npos ? -1 : std::stod(page.substr(at + series.size() + 2));
}

class AdminThreads : public ::testing::Test {
 protected:
  AdminThreads() : log_({.level = spdlog::level::off}, std::make_shared<spdlog::sinks::null_sink_mt>()) {
    server::ServerConfig config;
    config.listen = {"127.0.0.1:0"};
    config.admin_listen = "127.0.0.1:0";
    config.threads = 2;
    config.polling_threads = 2;
    config.inline_flops = 1e5;  // Of the calls below, the small ones stay on the polling threads.
    config.drain_wait = absl::ZeroDuration();
    server_ = *server::AttentionServer::Start(config, log_);
  }

  // Scrapes and probes until `done`, with no thought for what comes.
  std::thread Watcher(const std::atomic<bool>& done) const {
    return std::thread([&done, port = server_->admin_port()] {
      while (!done.load()) {
        HttpGet(port, "/metrics");
        HttpGet(port, "/readyz");
      }
    });
  }

  void Call() const {
    InThreads(kCallers, [this](int caller) {
      v1::AttendRequest request;
      *request.mutable_embeddings() = RandomTensor({1, caller % 2 == 0 ? 4 : 64, 32}, 1);
      for (int i = 0; i < kCallsEach; ++i) {
        const auto answer = CallUnary(server_->ports()[0], {.method = "/attend.v1.AttentionService/Attend"},
                                      request.SerializeAsString());
        EXPECT_TRUE(answer.ending.status.ok());
      }
    });
  }

  server::Log log_;
  std::unique_ptr<server::AttentionServer> server_;
};

TEST_F(AdminThreads, ScrapesUnderLoadAndCountsEveryCall) {
  const absl::Time end = absl::Now() + absl::Minutes(1);  // Only a hang reaches it.
  std::atomic<bool> done{false};
  std::thread watcher = Watcher(done);
  Call();
  done = true;
  watcher.join();
  const std::string page = HttpGet(server_->admin_port(), "/metrics");
  const std::string attend = R"({grpc_type="unary",grpc_service="attend.v1.AttentionService",grpc_method="Attend")";
  EXPECT_EQ(Value(page, "grpc_server_started_total" + attend + "}"), kCallers * kCallsEach);
  EXPECT_EQ(Value(page, "grpc_server_handled_total" + attend + R"(,grpc_code="OK"})"), kCallers * kCallsEach);
  EXPECT_EQ(Value(page, "grpc_server_handling_seconds_count" + attend + "}"), kCallers * kCallsEach);
  // Measured ten times a second, so that calls which end at once may come before the first time.
  while (Value(HttpGet(server_->admin_port(), "/metrics"), "attend_loop_delay_seconds_count") <= 0) {
    ASSERT_LT(absl::Now(), end) << "the polling threads' delay is not measured";
  }
}

TEST_F(AdminThreads, WatchesADrainAndAnEnd) {
  std::atomic<bool> done{false};
  std::thread watcher = Watcher(done);
  std::thread caller([this] {
    for (int i = 0; i < kCallsEach; ++i) {
      CallUnary(server_->ports()[0], {.method = "/attend.v1.AttentionService/GetServerInfo"}, "");
    }
  });
  server_->Drain();
  const int port = server_->admin_port();
  EXPECT_NE(HttpGet(port, "/readyz").find("draining"), std::string::npos);
  EXPECT_NE(HttpGet(port, "/livez").find("200 OK"), std::string::npos);
  caller.join();
  server_.reset();  // The watcher still asks.
  EXPECT_EQ(HttpGet(port, "/livez"), "");
  done = true;
  watcher.join();
}

}  // namespace
}  // namespace attend::testing
