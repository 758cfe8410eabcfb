// What every call and stream of the client library does around its stub: the deadline in, the status and the receipt
// out.
//
// Internal to client/lib. The functions are pure and may be called concurrently.
#ifndef ATTEND_CLIENT_LIB_CALL_H_
#define ATTEND_CLIENT_LIB_CALL_H_

#include <google/protobuf/message.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>
#include <grpcpp/support/sync_stream.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "attend/v1/attention_service.grpc.pb.h"
#include "client/lib/attend_stream.h"
#include "client/lib/client.h"

namespace attend::client {

// The inside of an AttendStream, which a Client makes.
//
// gRPC permits one reader and one writer at a time: `send_mu` makes one writer of many, the reader is one by contract.
struct AttendStream::Rpc {
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<v1::StreamAttendRequest, v1::StreamAttendResponse>> stream;
  v1::AttentionService::Stub* stub = nullptr;  // The client's.
  std::int64_t max_message_bytes = 0;          // The client's.
  bool finished = false;                       // Of the thread that receives.

  absl::Mutex send_mu;
  bool closed ABSL_GUARDED_BY(send_mu) = false;

  // What a server of version 0.1 would ignore, by the request's id, until a receipt says that it is a newer one.
  std::atomic<bool> has_receipt = false;
  absl::Mutex unknown_mu;
  std::map<std::int64_t, std::string> unknown_fields ABSL_GUARDED_BY(unknown_mu);
};

namespace internal {

// Errors: INVALID_ARGUMENT unless the timeout is positive and finite.
absl::Status CheckTimeout(const CallOptions& options);

// Asked before each message is sent: gRPC ends the process when protobuf cannot write one, which is from 2^31 bytes on.
// Errors: RESOURCE_EXHAUSTED when `message` is larger than `max_bytes` (ClientOptions::max_message_bytes).
absl::Status CheckSize(const google::protobuf::Message& message, std::int64_t max_bytes);

// Sets what `options` say; the deadline counts from here. An infinite timeout sets none.
void Prepare(const CallOptions& options, grpc::ClientContext* context);

// The trailer `server-timing` of a call that has ended, or empty.
std::string ServerTimingOf(const grpc::ClientContext& context);

// `status` of a call that has ended, with the server's details (client/lib/server_error.h).
absl::Status ToStatus(const grpc::Status& status, const grpc::ClientContext& context);

// Makes one call: `invoke(context, response)` is the stub's method, and returns when the call has ended.
template <typename Response, typename Invoke>
absl::StatusOr<CallResult<Response>> Call(const CallOptions& options, const Invoke& invoke) {
  if (absl::Status status = CheckTimeout(options); !status.ok()) return status;
  grpc::ClientContext context;
  Prepare(options, &context);
  CallResult<Response> result;
  const std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  const grpc::Status status = invoke(&context, &result.response);
  result.round_trip = absl::FromChrono(std::chrono::steady_clock::now() - start);
  if (!status.ok()) return ToStatus(status, context);
  result.server_timing = ParseServerTiming(ServerTimingOf(context));
  result.peer = context.peer();
  return result;
}

}  // namespace internal
}  // namespace attend::client

#endif  // ATTEND_CLIENT_LIB_CALL_H_
