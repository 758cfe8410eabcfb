// Methods of small messages that compute nothing (health, server info, layers by name): protobuf's generated classes
// are good enough for them; tensors take another way, see server/wire/.
//
// All functions are pure and may be called concurrently.
#ifndef ATTEND_SERVER_SERVICES_CONTROL_METHOD_H_
#define ATTEND_SERVER_SERVICES_CONTROL_METHOD_H_

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/limits.h"
#include "server/rpc/job.h"
#include "server/rpc/request_run.h"

namespace attend::server {

// Parses `bytes` into `message`. Errors: INVALID_ARGUMENT when they are not a message of its type, RESOURCE_EXHAUSTED
// with reason LIMIT_EXCEEDED beyond `max_bytes`: no honest control message comes near.
absl::Status ParseControlMessage(const grpc::ByteBuffer& bytes, google::protobuf::MessageLite& message,
                                 std::int64_t max_bytes = kMaxControlMessageBytes);

grpc::ByteBuffer SerializeControlMessage(const google::protobuf::MessageLite& message);

// A Job whose response is known once its request is. Thread-compatible, as every Job.
class ReadyJob final : public Job {
 public:
  explicit ReadyJob(const grpc::ByteBuffer& response) : response_(response) {}

  double flops() const override { return 0; }
  // Of lists; what health and information take is too little to count, and is answered also when nothing is left.
  double memory_bytes() const override {
    return response_.Length() <= kUncountedBytes ? 0 : static_cast<double>(response_.Length());
  }
  absl::Status Compute(const ComputeContext& /*context*/) override { return absl::OkStatus(); }
  grpc::ByteBuffer TakeResponse() override { return response_; }

 private:
  static constexpr std::size_t kUncountedBytes = 4 << 10;

  grpc::ByteBuffer response_;
};

// A unary method: `answer(request)`, or `answer(request, tenant)` where the caller's tenant matters, returns an
// absl::StatusOr<Response>. It is called concurrently, on polling threads,
// also by a busy server, and must not block. `max_bytes` bounds the request.
template <typename Request, typename Answer>
RequestMethod ControlMethod(Answer answer, std::int64_t max_bytes = kMaxControlMessageBytes) {
  return {.decode = [answer = std::move(answer), max_bytes](const grpc::ByteBuffer& bytes, const DecodeContext& context)
              -> absl::StatusOr<std::unique_ptr<Job>> {
            Request request;
            if (absl::Status parsed = ParseControlMessage(bytes, request, max_bytes); !parsed.ok()) return parsed;
            const auto response = [&] {
              if constexpr (std::is_invocable_v<Answer, const Request&, const std::string&>) {
                return answer(request, std::string(context.tenant));
              } else {
                return answer(request);
              }
            }();
            if (!response.ok()) return response.status();
            return std::make_unique<ReadyJob>(SerializeControlMessage(*response));
          },
          .refusable = false,
          .inline_decode_bytes = std::numeric_limits<std::size_t>::max(),  // It waits for no thread,
          .decode_memory = 0};                                             // and takes next to nothing.
}

}  // namespace attend::server

#endif  // ATTEND_SERVER_SERVICES_CONTROL_METHOD_H_
