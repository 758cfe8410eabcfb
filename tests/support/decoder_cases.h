// Decoders in tests: what they refuse, told as a change of a good request and the field to blame; and whole calls.
#ifndef ATTEND_TESTS_SUPPORT_DECODER_CASES_H_
#define ATTEND_TESTS_SUPPORT_DECODER_CASES_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "attend/v1/attention_service.pb.h"
#include "core/base/error.h"
#include "server/requests/decoders.h"
#include "tests/support/byte_buffers.h"
#include "tests/support/reader_vs_protobuf.h"

namespace attend::server {

inline absl::StatusOr<std::unique_ptr<Job>> Decode(const v1::ScaledDotProductAttentionRequest& request,
                                                   const Limits& limits = {}) {
  return SdpaDecoder()(Sliced(request.SerializeAsString(), 0), limits);
}
inline absl::StatusOr<std::unique_ptr<Job>> Decode(const v1::AttendRequest& request, const Limits& limits = {}) {
  return AttendDecoder(nullptr)(Sliced(request.SerializeAsString(), 0), limits);
}

template <typename Request>
struct Case {
  std::string name;
  std::function<void(Request&)> change;  // Of a good request.
  std::string field;                     // Empty: accepted.
  std::string message;
};

template <typename Request>
void PrintTo(const Case<Request>& c, std::ostream* os) {
  *os << c.name;
}

template <typename Request>
void ExpectVerdict(const Case<Request>& c, Request request) {
  c.change(request);
  const absl::Status status = Decode(request).status();
  if (c.field.empty()) {
    EXPECT_TRUE(status.ok()) << status;
    return;
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorDetails(status).field, c.field);
  EXPECT_EQ(GetErrorDetails(status).reason, "INVALID_FIELD");
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(c.message));
}

// Decodes, computes and parses; also holds the response's bytes to protobuf's serializer.
template <typename Response>
Response Call(const Decoder& decoder, const google::protobuf::MessageLite& request, std::size_t slice_size = 0) {
  Response response;
  absl::StatusOr<std::unique_ptr<Job>> job = decoder(Sliced(request.SerializeAsString(), slice_size), Limits());
  EXPECT_TRUE(job.ok()) << job.status();
  if (!job.ok()) return response;
  EXPECT_GT((*job)->flops(), 0);
  EXPECT_TRUE((*job)->Compute({}).ok());
  const grpc::ByteBuffer buffer = (*job)->TakeResponse();
  job->reset();  // The response must outlive it.
  const std::string bytes = Join(buffer);
  EXPECT_TRUE(response.ParseFromString(bytes));
  EXPECT_TRUE(response.SerializeAsString() == bytes) << "not what protobuf would have written";
  return response;
}

inline v1::ScaledDotProductAttentionResponse CallSdpa(const v1::ScaledDotProductAttentionRequest& request,
                                                      std::size_t slice_size = 0) {
  return Call<v1::ScaledDotProductAttentionResponse>(SdpaDecoder(), request, slice_size);
}

inline v1::AttendResponse CallAttend(const v1::AttendRequest& request, std::size_t slice_size = 0) {
  return Call<v1::AttendResponse>(AttendDecoder(nullptr), request, slice_size);
}

}  // namespace attend::server

#endif  // ATTEND_TESTS_SUPPORT_DECODER_CASES_H_
