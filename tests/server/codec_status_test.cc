// Every error travels as a code, a sentence and google.rpc details that fit into a trailer.
#include "server/rpc/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/wire/wire_format.h"
#include "tests/support/error_details.h"

namespace attend::server {
namespace {

using ::attend::testing::Detail;
using ::attend::testing::RichStatus;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Le;
using ::testing::Lt;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

TEST(ToGrpcStatus, OkIsOkWithoutDetails) {
  const grpc::Status status = ToGrpcStatus(absl::OkStatus());
  EXPECT_TRUE(status.ok());
  EXPECT_THAT(status.error_details(), IsEmpty());
}

TEST(ToGrpcStatus, EveryCodeKeepsItsNumberAndGivesItsNameAsReason) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status error(static_cast<absl::StatusCode>(code), "What is wrong");
    const grpc::Status status = ToGrpcStatus(error);
    EXPECT_EQ(status.error_code(), code);
    EXPECT_EQ(status.error_message(), "What is wrong");
    EXPECT_EQ(RichStatus(status).code(), code);
    EXPECT_EQ(RichStatus(status).message(), "What is wrong");
    EXPECT_EQ(RichStatus(status).details_size(), absl::IsInvalidArgument(error) ? 2 : 1) << error;
    const auto info = Detail<google::rpc::ErrorInfo>(status);
    EXPECT_EQ(info.reason(), absl::StatusCodeToString(error.code()));
    EXPECT_EQ(info.domain(), "attend.v1");
    EXPECT_EQ(info.metadata_size(), 0);
  }
}

// Generic clients find details by these exact URLs.
TEST(ToGrpcStatus, DetailsHaveTheTypeUrlsOfGoogleRpc) {
  const absl::Status error =
      WithDetails(InvalidField("query", "query is missing"), {.metadata = {{kRetryDelayKey, "1"}}});
  const google::rpc::Status rich = RichStatus(ToGrpcStatus(error));
  std::vector<std::string> urls;
  for (const google::protobuf::Any& any : rich.details()) urls.push_back(any.type_url());
  EXPECT_THAT(urls, ElementsAre("type.googleapis.com/google.rpc.ErrorInfo", "type.googleapis.com/google.rpc.BadRequest",
                                "type.googleapis.com/google.rpc.RetryInfo"));
}

TEST(ToGrpcStatus, InvalidFieldBecomesAFieldViolation) {
  const grpc::Status status = ToGrpcStatus(InvalidField("query.shape[2]", "query.shape[2] is 0; it must be positive"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Detail<google::rpc::ErrorInfo>(status).reason(), "INVALID_FIELD");
  const auto bad_request = Detail<google::rpc::BadRequest>(status);
  ASSERT_EQ(bad_request.field_violations_size(), 1);
  EXPECT_EQ(bad_request.field_violations(0).field(), "query.shape[2]");
  EXPECT_EQ(bad_request.field_violations(0).description(), "query.shape[2] is 0; it must be positive");
}

// Every INVALID_ARGUMENT has a BadRequest, so that clients need look in one place only.
TEST(ToGrpcStatus, AMessageThatIsWrongAsAWholeIsAViolationOfTheEmptyField) {
  const grpc::Status status = ToGrpcStatus(MalformedRequest(17, "field number 0 does not exist"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Detail<google::rpc::ErrorInfo>(status).reason(), "MALFORMED_REQUEST");
  const auto bad_request = Detail<google::rpc::BadRequest>(status);
  ASSERT_EQ(bad_request.field_violations_size(), 1);
  EXPECT_EQ(bad_request.field_violations(0).field(), "");
  EXPECT_THAT(bad_request.field_violations(0).description(), HasSubstr("at byte 17: field number 0 does not exist"));
}

TEST(ToGrpcStatus, AFieldOfAnotherCodeIsNoBadRequest) {
  const absl::Status error =
      WithDetails(absl::NotFoundError("no such layer"), {.reason = "LAYER_NOT_FOUND", .field = "layer"});
  const grpc::Status status = ToGrpcStatus(error);
  EXPECT_EQ(RichStatus(status).details_size(), 1);
  EXPECT_EQ(Detail<google::rpc::ErrorInfo>(status).reason(), "LAYER_NOT_FOUND");
}

TEST(ToGrpcStatus, MetadataTravelsInErrorInfo) {
  const grpc::Status status = ToGrpcStatus(LimitExceeded("--max-request-bytes", "too large"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(RichStatus(status).details_size(), 1) << "a limit is no reason to try again";
  EXPECT_THAT(Detail<google::rpc::ErrorInfo>(status).metadata(),
              UnorderedElementsAre(Pair("flag", "--max-request-bytes")));
}

struct DelayCase {
  std::string text;
  bool valid;
  std::int64_t seconds = 0;
  std::int32_t nanos = 0;
};

TEST(ToGrpcStatus, RetryDelayBecomesRetryInfoAlone) {
  for (const DelayCase& c : {
           DelayCase{"0", true, 0, 0},
           DelayCase{"1", true, 0, 1000000},
           DelayCase{"1999", true, 1, 999000000},
           DelayCase{"86400000", true, 86400, 0},
           DelayCase{"86400001", true, 86400, 0},
           DelayCase{"9223372036854775807", true, 86400, 0},
           DelayCase{"-1", false},
           DelayCase{"soon", false},
           DelayCase{"", false},
       }) {
    SCOPED_TRACE(c.text);
    const grpc::Status status = ToGrpcStatus(
        WithDetails(absl::UnavailableError("busy"), {.reason = "QUEUE_FULL", .metadata = {{kRetryDelayKey, c.text}}}));
    EXPECT_EQ(RichStatus(status).details_size(), c.valid ? 2 : 1);
    EXPECT_EQ(Detail<google::rpc::ErrorInfo>(status).metadata_size(), 0);
    if (!c.valid) continue;
    const auto retry = Detail<google::rpc::RetryInfo>(status);
    EXPECT_EQ(retry.retry_delay().seconds(), c.seconds);
    EXPECT_EQ(retry.retry_delay().nanos(), c.nanos);
  }
}

// Every text at its worst: long, not ASCII, not even UTF-8. Clients refuse more than 8 KiB of metadata.
TEST(ToGrpcStatus, HugeTextsStayBelowTheBound) {
  for (const std::string& unit :
       {std::string("x"), std::string("\xF0\x9F\x90\xA7"), std::string("\xFF"), std::string(1, '\0')}) {
    std::string huge;
    while (huge.size() < 100000) huge += unit;
    ErrorDetails details{.reason = huge, .field = huge, .metadata = {{kRetryDelayKey, "1"}}};
    for (int i = 0; i < 40; ++i) details.metadata.emplace_back(absl::StrCat(i, huge), huge);
    const grpc::Status status = ToGrpcStatus(WithDetails(absl::InvalidArgumentError(huge), details));
    EXPECT_THAT(status.error_details().size(), Lt(kMaxStatusDetailsBytes));
    EXPECT_THAT(status.error_message().size(), Le(kMaxStatusMessageBytes));
    EXPECT_THAT(status.error_message(), EndsWith("..."));
    EXPECT_EQ(RichStatus(status).details_size(), 3);
  }
}

struct Utf8Case {
  std::string in;
  std::size_t max_bytes;
  std::string out;
};

TEST(SafeUtf8, ReplacesWhatIsNotUtf8AndCutsBetweenCharacters) {
  const std::string euro = "\xE2\x82\xAC";
  for (const Utf8Case& c : {
           Utf8Case{"", 3, ""}, Utf8Case{"abcd", 4, "abcd"}, Utf8Case{"abcde", 4, "a..."}, Utf8Case{"abcd", 3, "..."},
           Utf8Case{euro + euro, 6, euro + euro}, Utf8Case{euro + euro, 5, "..."},
           Utf8Case{euro + euro + euro, 8, euro + "..."}, Utf8Case{"a\x80z", 9, "a?z"},  // A continuation alone.
           Utf8Case{"a\xE2\x82", 9, "a??"},                                              // Cut short.
           Utf8Case{"\xC0\xAF", 9, "??"},                                                // Overlong forms.
           Utf8Case{"\xE0\x80\xAF", 9, "???"},                                           //
           Utf8Case{"\xF0\x80\x80\xAF", 9, "????"},                                      //
           Utf8Case{"\xED\xA0\x80", 9, "???"},                                           // A surrogate.
           Utf8Case{"\xED\x9F\xBF", 9, "\xED\x9F\xBF"},                                  // The last before them.
           Utf8Case{"\xF4\x8F\xBF\xBF", 9, "\xF4\x8F\xBF\xBF"},                          // U+10FFFF
           Utf8Case{"\xF4\x90\x80\x80", 9, "????"},                                      // Beyond it.
           Utf8Case{"\xF5\x80\x80\x80", 9, "????"},                                      //
           Utf8Case{std::string("\0x", 2), 9, std::string("\0x", 2)}                     //
       }) {
    EXPECT_EQ(SafeUtf8(c.in, c.max_bytes), c.out) << ::testing::PrintToString(c.in);
  }
}

}  // namespace
}  // namespace attend::server
