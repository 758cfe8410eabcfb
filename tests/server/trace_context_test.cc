// Which of a caller's words about its trace may stand in the log.
#include "server/rpc/trace_context.h"

#include <gtest/gtest.h>

#include <string>

namespace attend::server {
namespace {

const std::string kGood = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceContext, TheExampleOfTheStandardIsATraceparent) { EXPECT_TRUE(IsTraceparent(kGood)); }

TEST(TraceContext, EveryOtherByteAtEveryPlaceThatIsNoDigitOrDashIsRefused) {
  for (std::size_t i = 0; i < kGood.size(); ++i) {
    for (int c = 0; c < 256; ++c) {
      std::string text = kGood;
      text[i] = static_cast<char>(c);
      const bool dash = kGood[i] == '-';
      const bool fits = dash ? c == '-' : (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
      EXPECT_EQ(IsTraceparent(text), fits) << text;
    }
  }
}

TEST(TraceContext, LengthsZerosAndTheLastVersionAreRefused) {
  EXPECT_FALSE(IsTraceparent(""));
  EXPECT_FALSE(IsTraceparent(kGood.substr(0, 54)));
  EXPECT_FALSE(IsTraceparent(kGood + "0"));
  EXPECT_FALSE(IsTraceparent("ff" + kGood.substr(2)));
  EXPECT_FALSE(IsTraceparent("00-" + std::string(32, '0') + "-00f067aa0ba902b7-01"));
  EXPECT_FALSE(IsTraceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-" + std::string(16, '0') + "-01"));
}

TEST(TraceContext, ARequestIdIsVisibleAsciiOfBoundedLength) {
  EXPECT_TRUE(IsRequestId("a"));
  EXPECT_TRUE(IsRequestId(std::string(128, '~')));
  EXPECT_TRUE(IsRequestId("!7f3b:req/1=\"x\""));
  for (const std::string& text : {std::string(), std::string(129, 'a'), std::string("a b"), std::string("a\n"),
                                  std::string("a\x7f"), std::string("\xc3\xa9"), std::string(1, '\0')}) {
    EXPECT_FALSE(IsRequestId(text)) << text;
  }
}

}  // namespace
}  // namespace attend::server
