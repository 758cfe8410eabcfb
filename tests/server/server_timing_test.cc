// The trailer that says where a call's time went.
#include "server/rpc/server_timing.h"

#include <gtest/gtest.h>

#include <chrono>

namespace attend::server {
namespace {

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::nanoseconds;

TEST(ServerTimingTest, DurationsAreMillisecondsWithThreeDecimals) {
  struct Case {
    Clock::duration duration;
    const char* expected;
  };
  const Case cases[] = {
      {nanoseconds(0), "0.000"},
      {nanoseconds(999), "0.000"},
      {microseconds(1), "0.001"},
      {microseconds(10), "0.010"},
      {microseconds(999), "0.999"},
      {microseconds(1000), "1.000"},
      {microseconds(123456), "123.456"},
      {microseconds(-5), "0.000"},
      {hours(1), "3600000.000"},
      {hours(2000000), "1000000000.000"},
      {Clock::duration::max(), "1000000000.000"},
  };
  for (const Case& c : cases) {
    const CallTiming timing{.receive = c.duration, .queue = c.duration, .compute = c.duration, .send = c.duration};
    const std::string d = c.expected;
    EXPECT_EQ(FormatServerTiming(timing),
              "receive;dur=" + d + ", queue;dur=" + d + ", compute;dur=" + d + ", send;dur=" + d);
  }
}

TEST(ServerTimingTest, EachStationHasItsOwnPlace) {
  const CallTiming timing{
      .receive = microseconds(1), .queue = microseconds(2), .compute = microseconds(3), .send = microseconds(4)};
  EXPECT_EQ(FormatServerTiming(timing), "receive;dur=0.001, queue;dur=0.002, compute;dur=0.003, send;dur=0.004");
}

}  // namespace
}  // namespace attend::server
