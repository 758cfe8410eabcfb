// The inside of an AttendStream, which a Client makes. Internal to the library.
#ifndef ATTEND_CLIENT_LIB_ATTEND_STREAM_RPC_H_
#define ATTEND_CLIENT_LIB_ATTEND_STREAM_RPC_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/sync_stream.h>

#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "attend/v1/attention_service.grpc.pb.h"
#include "client/lib/attend_stream.h"

namespace attend::client {

// gRPC permits one reader and one writer at a time: `send_mu` makes one writer of many, the reader is one by contract.
struct AttendStream::Rpc {
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<v1::StreamAttendRequest, v1::StreamAttendResponse>> stream;
  bool finished = false;  // Of the thread that receives.

  absl::Mutex send_mu;
  bool closed ABSL_GUARDED_BY(send_mu) = false;
};

}  // namespace attend::client

#endif  // ATTEND_CLIENT_LIB_ATTEND_STREAM_RPC_H_
