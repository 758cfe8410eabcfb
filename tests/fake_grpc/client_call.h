// The client's end of a call of the fake gRPC.
#ifndef ATTEND_TESTS_FAKE_GRPC_CLIENT_CALL_H_
#define ATTEND_TESTS_FAKE_GRPC_CLIENT_CALL_H_

#include <grpcpp/support/byte_buffer.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "tests/fake_grpc/call_state.h"
#include "tests/fake_grpc/server_state.h"

namespace attend::fake_grpc {

// Thread-safe but for Finish. A call that is not over when this object is destroyed is cancelled.
class ClientCall {
 public:
  ClientCall(int port, CallStart start) {
    const std::shared_ptr<ServerState> server = ServerState::Find(port);
    if (server != nullptr) call_ = server->Connect(std::move(start));
  }
  ~ClientCall() { Cancel(); }
  ClientCall(const ClientCall&) = delete;
  ClientCall& operator=(const ClientCall&) = delete;

  // In slices as HTTP/2's frames cut them. Waits for room; false when the call has ended.
  bool Send(const std::string& bytes) {
    constexpr std::size_t kFrameBytes = 16 << 10;
    std::vector<grpc::Slice> slices;
    for (std::size_t begin = 0; begin < bytes.size(); begin += kFrameBytes) {
      slices.emplace_back(bytes.data() + begin, std::min(kFrameBytes, bytes.size() - begin));
    }
    return call_ != nullptr && call_->Send(grpc::ByteBuffer(slices.data(), slices.size()));
  }
  void HalfClose() {
    if (call_ != nullptr) call_->HalfClose();
  }
  void Cancel() {
    if (call_ != nullptr) call_->Cancel(grpc::Status(grpc::StatusCode::CANCELLED, "CANCELLED"));
  }
  // Waits for a message; nothing at the end.
  std::optional<std::string> Receive() { return call_ == nullptr ? std::nullopt : call_->Receive(); }
  // Waits for the end, whatever messages are left. REQUIRES: called at most once.
  Ending Finish() {
    if (call_ != nullptr) return call_->Await();
    return {grpc::Status(grpc::StatusCode::UNAVAILABLE, "nothing listens there"), {}};
  }

 private:
  std::shared_ptr<CallState> call_;  // Null: refused.
};

// A unary call from its beginning to its end.
struct UnaryAnswer {
  std::optional<std::string> response;
  Ending ending;
};

inline UnaryAnswer CallUnary(int port, CallStart start, const std::string& request) {
  ClientCall call(port, std::move(start));
  call.Send(request);
  call.HalfClose();
  std::optional<std::string> response = call.Receive();
  return {std::move(response), call.Finish()};
}

}  // namespace attend::fake_grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_CLIENT_CALL_H_
