// A StreamAttend by bytes: what its messages carry may be anything, and answers are taken apart by protobuf's parser.
//
// One thread may send while another receives.
#ifndef ATTEND_TESTS_SUPPORT_RAW_STREAM_H_
#define ATTEND_TESTS_SUPPORT_RAW_STREAM_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/sync_stream.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "google/rpc/status.pb.h"

namespace attend::testing {

struct StreamAnswer {
  std::int64_t id = 0;
  std::string server_timing;
  std::optional<std::string> attend;                        // As bytes.
  std::optional<std::string> scaled_dot_product_attention;  // Likewise.
  std::optional<google::rpc::Status> status;
};

class RawStream {
 public:
  // No stream of a test waits for ever.
  RawStream(const std::shared_ptr<grpc::Channel>& channel, const char* path,
            std::chrono::milliseconds timeout = std::chrono::seconds(30));

  // A StreamAttendRequest; false when the stream is broken.
  bool Send(std::int64_t id, const std::string& attend);
  bool SendMessage(const std::string& bytes);
  void HalfClose() { stream_->WritesDone(); }
  void Cancel() { context_.TryCancel(); }

  // Nothing at the stream's end.
  std::optional<StreamAnswer> Receive();
  // REQUIRES: called once, after Receive returned nothing.
  grpc::Status Finish() { return stream_->Finish(); }
  std::string trailer(const std::string& name) const;

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>> stream_;
};

// The length-delimited field `number`.
std::string LengthDelimited(int number, const std::string& payload);

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_RAW_STREAM_H_
