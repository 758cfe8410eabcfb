// Guards what an error carries to the server: code, sentence, reason, field and named values.
#include "core/base/error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace attend {
namespace {

using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

TEST(Error, InvalidFieldCarriesCodeMessageReasonAndField) {
  const absl::Status status = InvalidField("query.shape[2]", "query.shape[2] is 0; every axis must be at least 1");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "query.shape[2] is 0; every axis must be at least 1");
  const ErrorDetails details = GetErrorDetails(status);
  EXPECT_EQ(details.reason, "INVALID_FIELD");
  EXPECT_EQ(details.field, "query.shape[2]");
  EXPECT_THAT(details.metadata, IsEmpty());
}

TEST(Error, LimitExceededNamesTheFlagAndNoField) {
  const absl::Status status = LimitExceeded("--max-request-bytes", "the request has 10 bytes; at most 5 are accepted");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  const ErrorDetails details = GetErrorDetails(status);
  EXPECT_EQ(details.reason, "LIMIT_EXCEEDED");
  EXPECT_EQ(details.field, "");
  EXPECT_THAT(details.metadata, UnorderedElementsAre(Pair("flag", "--max-request-bytes")));
}

TEST(Error, DetailsSurviveARoundTrip) {
  const absl::Status status =
      WithDetails(absl::NotFoundError("no such layer"), {"LAYER_NOT_FOUND", "layer", {{"name", "a"}, {"empty", ""}}});
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  const ErrorDetails details = GetErrorDetails(status);
  EXPECT_EQ(details.reason, "LAYER_NOT_FOUND");
  EXPECT_EQ(details.field, "layer");
  EXPECT_THAT(details.metadata, UnorderedElementsAre(Pair("name", "a"), Pair("empty", "")));
}

TEST(Error, ErrorsOfOthersHaveNoDetails) {
  for (const absl::Status& status : {absl::OkStatus(), absl::InternalError("from elsewhere")}) {
    const ErrorDetails details = GetErrorDetails(status);
    EXPECT_EQ(details.reason, "");
    EXPECT_EQ(details.field, "");
    EXPECT_THAT(details.metadata, IsEmpty());
  }
}

TEST(Error, PrefixFieldExtendsThePathAndKeepsTheRest) {
  const absl::Status status = PrefixField("requests[3]", InvalidField("query.shape", "bad"));
  EXPECT_EQ(GetErrorDetails(status).field, "requests[3].query.shape");
  EXPECT_EQ(GetErrorDetails(status).reason, "INVALID_FIELD");
  EXPECT_EQ(status.message(), "bad");
}

TEST(Error, PrefixFieldLeavesErrorsWithoutFieldAlone) {
  EXPECT_EQ(PrefixField("query", absl::OkStatus()), absl::OkStatus());
  EXPECT_EQ(PrefixField("query", absl::CancelledError("stop")), absl::CancelledError("stop"));
}

}  // namespace
}  // namespace attend
