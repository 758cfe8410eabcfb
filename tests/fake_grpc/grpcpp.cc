// gRPC's classes and functions, by what stands behind them here.
#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <grpcpp/alarm.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <ctime>
#include <limits>
#include <utility>

#include "tests/fake_grpc/require.h"
#include "tests/fake_grpc/server_state.h"

namespace grpc {

using attend::fake_grpc::Require;
using attend::fake_grpc::ServerState;

void Alarm::Set(CompletionQueue* queue, gpr_timespec deadline, void* tag) {
  Require(gpr_time_cmp(deadline, gpr_now(GPR_CLOCK_MONOTONIC)) <= 0, "(of the fake) an alarm that rings later");
  queue->End(queue->Begin(tag), true);
}

GenericServerAsyncReaderWriter::~GenericServerAsyncReaderWriter() = default;

void ServerContext::TryCancel() const {
  if (const auto call = call_.lock()) call->Cancel(Status(StatusCode::CANCELLED, "Cancelled on the server side"));
}

void GenericServerAsyncReaderWriter::Read(ByteBuffer* message, void* tag) { call_->Read(message, tag); }

void GenericServerAsyncReaderWriter::Write(const ByteBuffer& message, WriteOptions /*options*/, void* tag) {
  call_->Write(message, tag);
}

void GenericServerAsyncReaderWriter::Finish(const Status& status, void* tag) {
  call_->Finish(nullptr, status, context_->trailers_, tag);
}

void GenericServerAsyncReaderWriter::WriteAndFinish(const ByteBuffer& message, WriteOptions /*options*/,
                                                    const Status& status, void* tag) {
  call_->Finish(&message, status, context_->trailers_, tag);
}

void AsyncGenericService::RequestCall(GenericServerContext* context, GenericServerAsyncReaderWriter* stream,
                                      CompletionQueue* call_queue, ServerCompletionQueue* notification_queue,
                                      void* tag) {
  Require(server_ != nullptr && call_queue == notification_queue, "(of the fake) two queues for one call");
  server_->Request({context, stream, call_queue, call_queue->Begin(tag)});
}

Server::Server(std::shared_ptr<ServerState> state) : state_(std::move(state)) {}
Server::~Server() = default;

void Server::Shutdown(std::chrono::system_clock::time_point deadline) { state_->Shutdown(deadline); }

grpc_server* Server::c_server() { return reinterpret_cast<grpc_server*>(state_.get()); }

namespace {

class ConnectionTaker final : public experimental::ExternalConnectionAcceptor {
 public:
  explicit ConnectionTaker(std::shared_ptr<std::weak_ptr<ServerState>> server) : server_(std::move(server)) {}

  void HandleNewConnection(NewConnectionParameters* connection) override {
    sockaddr_in own{};
    socklen_t size = sizeof own;
    Require(getsockname(connection->fd, reinterpret_cast<sockaddr*>(&own), &size) == 0, "no connection is handed over");
    if (const auto server = server_->lock()) ServerState::Listen(ntohs(own.sin_port), server);
    close(connection->fd);
  }

 private:
  const std::shared_ptr<std::weak_ptr<ServerState>> server_;
};

}  // namespace

std::unique_ptr<experimental::ExternalConnectionAcceptor>
ServerBuilder::experimental_type::AddExternalConnectionAcceptor(
    ExternalConnectionType /*type*/, const std::shared_ptr<ServerCredentials>& /*credentials*/) {
  return std::make_unique<ConnectionTaker>(builder_.built_);
}

std::unique_ptr<Server> ServerBuilder::BuildAndStart() {
  auto state = std::make_shared<ServerState>();
  *built_ = state;
  service_->server_ = state.get();
  return std::make_unique<Server>(std::move(state));
}

}  // namespace grpc

void grpc_server_cancel_all_calls(grpc_server* server) {
  reinterpret_cast<attend::fake_grpc::ServerState*>(server)->CancelAll();
}

gpr_timespec gpr_now(gpr_clock_type clock) {
  timespec now;
  clock_gettime(clock == GPR_CLOCK_MONOTONIC ? CLOCK_MONOTONIC : CLOCK_REALTIME, &now);
  return {now.tv_sec, static_cast<std::int32_t>(now.tv_nsec), clock};
}

gpr_timespec gpr_inf_past(gpr_clock_type clock) { return {std::numeric_limits<std::int64_t>::min(), 0, clock}; }
gpr_timespec gpr_time_from_millis(std::int64_t milliseconds, gpr_clock_type clock) {
  return {milliseconds / 1000, static_cast<std::int32_t>(milliseconds % 1000 * 1'000'000), clock};
}
gpr_timespec gpr_time_add(gpr_timespec a, gpr_timespec b) {
  const std::int32_t nanoseconds = a.tv_nsec + b.tv_nsec;
  return {a.tv_sec + b.tv_sec + nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000, a.clock_type};
}

int gpr_time_cmp(gpr_timespec a, gpr_timespec b) {
  if (a.tv_sec != b.tv_sec) return a.tv_sec < b.tv_sec ? -1 : 1;
  return a.tv_nsec < b.tv_nsec ? -1 : a.tv_nsec > b.tv_nsec ? 1 : 0;
}

// Nothing here logs.
void gpr_set_log_function(gpr_log_func /*function*/) {}
void gpr_set_log_verbosity(gpr_log_severity /*least*/) {}
