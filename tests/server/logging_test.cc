// Log lines: one per event, readable by machines, whatever the text.
#include "server/base/logging.h"

#include <gmock/gmock.h>
#include <grpc/support/log.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/ostream_sink.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace attend::server {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

class LoggingTest : public ::testing::Test {
 protected:
  Log MakeLog(LogFormat format, LogLevel level = spdlog::level::info) {
    return Log({.format = format, .level = level}, std::make_shared<spdlog::sinks::ostream_sink_mt>(out_));
  }
  std::string text() const { return out_.str(); }
  std::ptrdiff_t lines() const {
    const std::string all = text();
    return std::count(all.begin(), all.end(), '\n');
  }

  std::ostringstream out_;
};

TEST_F(LoggingTest, JsonLinesParseWhateverTheTextIs) {
  const std::vector<std::string> texts = {"plain",       "with \"quotes\"",       "a\nline",          "",
                                          "100% {} {0}", std::string("nul\0", 4), "broken \xff utf8", "back\\slash"};
  Log log = MakeLog(LogFormat::kJson);
  for (const std::string& text : texts) {
    out_.str("");
    log.Info(text, {{"text", text}, {"count", std::int64_t{-3}}, {"ratio", 0.5}});
    ASSERT_EQ(lines(), 1) << out_.str();
    const auto json = nlohmann::json::parse(out_.str());
    EXPECT_EQ(json.at("level"), "info");
    EXPECT_EQ(json.at("message"), json.at("text"));
    if (text.find('\xff') == std::string::npos) {
      EXPECT_EQ(json.at("text"), text);
    }
    EXPECT_EQ(json.at("count"), -3);
    EXPECT_EQ(json.at("ratio"), 0.5);
    EXPECT_THAT(json.at("time").get<std::string>(),
                MatchesRegex("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z"));
  }
}

TEST_F(LoggingTest, TextLinesStayOneLineAndQuoteWhatIsAmbiguous) {
  Log log = MakeLog(LogFormat::kText);
  log.Info("two\nlines", {{"a", std::string("plain")}, {"b", std::string("has space\n")}, {"c", std::int64_t{7}}});
  EXPECT_THAT(text(), HasSubstr("info two lines a=plain b=\"has space\\n\" c=7\n"));
  EXPECT_EQ(lines(), 1);
}

TEST_F(LoggingTest, LevelsBelowTheChosenOneAreSilent) {
  Log log = MakeLog(LogFormat::kText, ParseLogLevel("warning"));
  EXPECT_FALSE(log.Enabled(spdlog::level::info));
  log.Info("quiet");
  EXPECT_EQ(text(), "");
  log.Error("loud");
  EXPECT_THAT(text(), HasSubstr("error loud"));
}

TEST_F(LoggingTest, WhatGrpcLogsComesOutInTheSameForm) {
  Log log = MakeLog(LogFormat::kJson);
  {
    const GrpcLogRoute route(log);
    gpr_log(GPR_ERROR, "handshake with %s failed", "somebody");
  }
  const auto json = nlohmann::json::parse(text());
  EXPECT_EQ(json.at("message"), "handshake with somebody failed");
  EXPECT_EQ(json.at("source"), "grpc");
  EXPECT_EQ(json.at("level"), "warning");
}

// Whoever writes a line to it stays there until the gate opens.
class GatedSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  absl::Notification reached, gate;

 private:
  void sink_it_(const spdlog::details::log_msg& /*message*/) override {
    reached.Notify();
    gate.WaitForNotification();
  }
  void flush_() override {}
};

TEST(GrpcLogRouteTest, ItsEndWaitsForAThreadOfGrpcThatIsWriting) {
  const auto sink = std::make_shared<GatedSink>();
  Log log({}, sink);
  auto route = std::make_unique<GrpcLogRoute>(log);
  std::thread of_grpc([] { gpr_log(GPR_ERROR, "a line"); });
  sink->reached.WaitForNotification();
  absl::Notification ended;
  std::thread ends([&route, &ended] {
    route.reset();
    ended.Notify();
  });
  EXPECT_FALSE(ended.WaitForNotificationWithTimeout(absl::Milliseconds(200)));
  sink->gate.Notify();
  of_grpc.join();
  ends.join();
}

TEST_F(LoggingTest, PeersCannotFloodTheLogThroughGrpc) {
  Log log = MakeLog(LogFormat::kText);
  const GrpcLogRoute route(log);
  for (int i = 0; i < 1000; ++i) gpr_log(GPR_ERROR, "Compression algorithm 'gzip' is disabled.");
  EXPECT_GE(lines(), 10);
  EXPECT_LE(lines(), 40) << "even if the loop takes longer than a window";
}

TEST(LogRateLimitTest, EachWindowHasItsLinesAndCountsTheOthers) {
  LogRateLimit limit(2, std::chrono::seconds(10));
  const LogRateLimit::Clock::time_point start(std::chrono::hours(1));
  const auto ask = [&](int ms) { return limit.Ask(start + std::chrono::milliseconds(ms)); };
  EXPECT_TRUE(ask(0).pass);
  EXPECT_TRUE(ask(1).pass);
  EXPECT_FALSE(ask(2).pass);
  EXPECT_FALSE(ask(9999).pass);
  const LogRateLimit::Verdict next = ask(10000);
  EXPECT_TRUE(next.pass);
  EXPECT_EQ(next.held_back, 2);
  EXPECT_TRUE(ask(10001).pass);
  EXPECT_FALSE(ask(19999).pass) << "a window begins with its first line";
  EXPECT_EQ(ask(50000).held_back, 1);
  EXPECT_EQ(ask(70000).held_back, 0);
}

TEST(LogRateLimitTest, WhatAWindowHeldBackIsToldOnceWithoutAFurtherLine) {
  LogRateLimit limit(1, std::chrono::seconds(10));
  const LogRateLimit::Clock::time_point start(std::chrono::hours(1));
  const auto at = [&](int ms) { return start + std::chrono::milliseconds(ms); };
  EXPECT_EQ(limit.TakeHeldBack(at(0)), 0);
  for (int i = 0; i < 4; ++i) limit.Ask(at(i));
  EXPECT_EQ(limit.TakeHeldBack(at(9999)), 0) << "more may come";
  EXPECT_EQ(limit.TakeHeldBack(at(10000)), 3);
  EXPECT_EQ(limit.TakeHeldBack(at(20000)), 0);
  EXPECT_EQ(limit.Ask(at(20000)).held_back, 0);
}

}  // namespace
}  // namespace attend::server
