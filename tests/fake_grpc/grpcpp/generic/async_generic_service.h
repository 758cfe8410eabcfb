// The generic asynchronous API, for tests/fake_grpc.
#ifndef ATTEND_TESTS_FAKE_GRPC_GRPCPP_GENERIC_ASYNC_GENERIC_SERVICE_H_
#define ATTEND_TESTS_FAKE_GRPC_GRPCPP_GENERIC_ASYNC_GENERIC_SERVICE_H_

#include <grpc/grpc.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>

#include <memory>

namespace grpc {

// Hints change nothing here.
class WriteOptions {
 public:
  WriteOptions& set_buffer_hint() { return *this; }
};

// The server's end of a call. Reading is one thread's, sending another's, as in gRPC.
class GenericServerAsyncReaderWriter {
 public:
  explicit GenericServerAsyncReaderWriter(ServerContext* context) : context_(context) {}
  ~GenericServerAsyncReaderWriter();
  GenericServerAsyncReaderWriter(const GenericServerAsyncReaderWriter&) = delete;
  GenericServerAsyncReaderWriter& operator=(const GenericServerAsyncReaderWriter&) = delete;

  void Read(ByteBuffer* message, void* tag);
  void Write(const ByteBuffer& message, WriteOptions options, void* tag);
  void Finish(const Status& status, void* tag);
  void WriteAndFinish(const ByteBuffer& message, WriteOptions options, const Status& status, void* tag);

 private:
  friend class attend::fake_grpc::CallState;

  ServerContext* const context_;
  std::shared_ptr<attend::fake_grpc::CallState> call_;  // Null until a call has arrived.
};

class AsyncGenericService {
 public:
  // REQUIRES: registered with a builder whose server was started.
  void RequestCall(GenericServerContext* context, GenericServerAsyncReaderWriter* stream, CompletionQueue* call_queue,
                   ServerCompletionQueue* notification_queue, void* tag);

 private:
  friend class ServerBuilder;
  attend::fake_grpc::ServerState* server_ = nullptr;
};

}  // namespace grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_GRPCPP_GENERIC_ASYNC_GENERIC_SERVICE_H_
