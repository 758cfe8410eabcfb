// Fuzzes the codec with bytes as a hostile caller might send them, cut into slices of any size:
//   - the wire reader accepts, rejects and reads exactly what protobuf's own parser does;
//   - the decoders refuse with a reason, or make a job that computes within its limits and whose response protobuf
//     parses and would have written byte for byte;
//   - every error fits into a trailer.
//
// The first byte chooses the size of the slices, the rest is the message; it is read as every kind of request.
//
// One command fuzzes for ten minutes with clang's libFuzzer (`make fuzz` does the same for every target):
//
//   cmake --preset fuzz && ninja -C build/fuzz request_fuzz && scripts/fuzz.sh 600
//
// Every input worth keeping goes to tests/fuzz/corpus/request, which `ctest -R request_fuzz_replay` runs under every
// preset.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "attend/v1/attention_service.pb.h"
#include "core/base/error.h"
#include "google/rpc/status.pb.h"
#include "server/requests/decoders.h"
#include "server/rpc/status.h"
#include "server/wire/stream_messages.h"
#include "tests/support/reader_vs_protobuf.h"

namespace attend::server {
namespace {

void Require(bool condition, std::string_view what) {
  if (condition) return;
  std::fprintf(stderr, "%.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

// Small enough that an input takes milliseconds.
Limits SmallLimits() {
  Limits limits;
  limits.max_response_bytes = 1 << 18;
  limits.max_request_memory_bytes = 1 << 20;
  limits.max_request_flops = 1e7;
  return limits;
}

// `wanted`, but not so small that making slices is what is fuzzed: a slice is an allocation.
std::size_t SliceSize(std::size_t wanted, std::size_t bytes) {
  constexpr std::size_t kMostSlices = 32;
  return wanted == 0 ? 0 : std::max(wanted, bytes / kMostSlices);
}

void CheckError(const absl::Status& error) {
  Require(absl::IsInvalidArgument(error) || absl::IsResourceExhausted(error) || absl::IsNotFound(error),
          error.ToString());
  Require(!GetErrorDetails(error).reason.empty() && !error.message().empty(), "an error without a reason");
  const grpc::Status status = ToGrpcStatus(error);
  google::rpc::Status rich;
  Require(rich.ParseFromString(status.error_details()), "details that do not parse");
  Require(status.error_details().size() < kMaxStatusDetailsBytes, "details that do not fit");
}

template <typename Response>
void CheckResponse(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  Require(buffer.Dump(&slices).ok(), "a response without bytes");
  std::string bytes;
  for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  Response response;
  Require(response.ParseFromString(bytes), "a response that does not parse");
  Require(response.SerializeAsString() == bytes, "a response that protobuf would have written otherwise");
}

// What a job costs is what its estimate says; and a request that is described right has an estimate.
void CheckEstimate(const absl::StatusOr<RequestCost>& cost, const absl::StatusOr<std::unique_ptr<Job>>& job) {
  if (!cost.ok()) {
    CheckError(cost.status());
    return Require(!job.ok(), "a job without an estimate");
  }
  Require(cost->flops >= 0 && cost->memory_bytes > 0 && cost->response_bytes > 0, "an estimate that is none");
  if (!job.ok()) return;
  Require((*job)->flops() == cost->flops && (*job)->memory_bytes() == cost->memory_bytes, "an estimate that is wrong");
}

template <typename Response>
void Decode(const Decoder& decoder, const Estimator& estimator, const grpc::ByteBuffer& request) {
  const absl::StatusOr<std::unique_ptr<Job>> job = decoder(request, SmallLimits());
  CheckEstimate(estimator(request, SmallLimits()), job);
  if (!job.ok()) return CheckError(job.status());
  Require((*job)->Compute({}).ok(), "a valid problem that fails");
  CheckResponse<Response>((*job)->TakeResponse());
}

// As a stream does: what the message carries is decoded, and its answer put into a message.
void DecodeStreamRequest(const grpc::ByteBuffer& message) {
  StreamRequest request;
  if (const absl::Status read = ReadStreamRequest(message, request); !read.ok()) return CheckError(read);
  if (const auto timeout = CheckTimeout(request.timeout); !timeout.ok()) CheckError(timeout.status());
  if (!request.request) return CheckError(MissingRequest());
  const RequestKind kind = request.request->kind;
  const Decoder decode = kind == RequestKind::kAttend ? AttendDecoder(nullptr) : SdpaDecoder();
  const absl::StatusOr<std::unique_ptr<Job>> job = decode(request.request->bytes, SmallLimits());
  if (!job.ok()) {
    CheckError(job.status());
    return CheckResponse<v1::StreamAttendResponse>(StreamError(request.id, "timing", ToRpcStatus(job.status())));
  }
  Require((*job)->Compute({}).ok(), "a valid problem that fails");
  CheckResponse<v1::StreamAttendResponse>(StreamResponse(request.id, "timing", kind, (*job)->TakeResponse()));
}

}  // namespace
}  // namespace attend::server

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace attend;  // NOLINT(google-build-using-namespace): a function with C linkage has no namespace.
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const grpc::ByteBuffer request = server::Sliced(bytes, server::SliceSize(data[0], bytes.size()));
  const std::string attend_difference = server::CompareAttendRequest(bytes, request);
  server::Require(attend_difference.empty(), "AttendRequest: " + attend_difference);
  const std::string sdpa_difference = server::CompareSdpaRequest(bytes, request);
  server::Require(sdpa_difference.empty(), "ScaledDotProductAttentionRequest: " + sdpa_difference);
  const std::string stream_difference = server::CompareStreamRequest(bytes, request);
  server::Require(stream_difference.empty(), "StreamAttendRequest: " + stream_difference);
  server::DecodeStreamRequest(request);
  server::Decode<v1::AttendResponse>(server::AttendDecoder(nullptr), server::AttendEstimator(nullptr), request);
  server::Decode<v1::ScaledDotProductAttentionResponse>(server::SdpaDecoder(), server::SdpaEstimator(), request);
  return 0;
}
