// attend-echo: the floor that attend's server is measured against. Reads each request's bytes through the same generic
// asynchronous API, does nothing with them, and answers a fixed number of bytes (or the request's own).
//
//   attend-echo --port-file FILE [--response-bytes N] [--small-bytes N] [--discard]
//
// With --small-bytes, requests of no more bytes than that are answered with their own. With --discard it reads all
// messages of each call, keeps none of them, and answers at their end: the floor of uploads. One completion queue, one
// thread, no metadata, no health, no limits. Ends on SIGTERM by the default action.

#include <absl/synchronization/mutex.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>

namespace {

class EchoCall {
 public:
  struct Answers {
    grpc::ByteBuffer response;    // Not valid: the request itself.
    std::size_t small_bytes = 0;  // Requests that are answered with themselves in any case.
    bool discards = false;
  };

  EchoCall(grpc::AsyncGenericService* service, grpc::ServerCompletionQueue* queue, const Answers* answers)
      : service_(service), queue_(queue), answers_(answers), stream_(&context_) {
    service_->RequestCall(&context_, &stream_, queue_, queue_, this);
  }

  void Proceed(bool ok) {
    switch (step_) {
      case Step::kAccept:
        if (!ok) return delete this;
        new EchoCall(service_, queue_, answers_);
        step_ = Step::kRead;
        return stream_.Read(&request_, this);
      case Step::kRead:
        if (answers_->discards && ok) {
          request_.Clear();
          return stream_.Read(&request_, this);
        }
        step_ = Step::kFinish;
        return stream_.WriteAndFinish(Answer(), {}, grpc::Status::OK, this);
      case Step::kFinish: return delete this;
    }
  }

 private:
  enum class Step { kAccept, kRead, kFinish };

  const grpc::ByteBuffer& Answer() {
    const bool small = request_.Valid() && request_.Length() <= answers_->small_bytes;
    return answers_->response.Valid() && !small ? answers_->response : request_;
  }

  grpc::AsyncGenericService* service_;
  grpc::ServerCompletionQueue* queue_;
  const Answers* answers_;
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter stream_;
  grpc::ByteBuffer request_;
  Step step_ = Step::kAccept;
};

}  // namespace

int main(int argc, char** argv) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  CLI::App app("Answers every call with a fixed number of bytes");
  std::string port_file;
  std::size_t response_bytes = 0;
  app.add_option("--port-file", port_file, "Where to write the port")->required();
  app.add_option("--response-bytes", response_bytes, "Size of each response; 0: the request's own bytes");
  EchoCall::Answers answers;
  app.add_option("--small-bytes", answers.small_bytes, "Requests of at most this size are answered with themselves");
  app.add_flag("--discard", answers.discards, "Read all messages of a call and answer at their end");
  CLI11_PARSE(app, argc, argv);

  if (response_bytes > 0 || answers.discards) {
    grpc::Slice slice(std::string(response_bytes, 'x'));
    answers.response = grpc::ByteBuffer(&slice, 1);
  }
  grpc::AsyncGenericService service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterAsyncGenericService(&service);
  builder.SetMaxReceiveMessageSize(-1);
  const std::unique_ptr<grpc::ServerCompletionQueue> queue = builder.AddCompletionQueue();
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  // Written under another name first: whoever waits for the file never reads half a number.
  std::ofstream(port_file + ".tmp") << port;
  if (std::rename((port_file + ".tmp").c_str(), port_file.c_str()) != 0) return 1;

  for (int i = 0; i < 64; ++i) new EchoCall(&service, queue.get(), &answers);
  void* tag = nullptr;
  bool ok = false;
  while (queue->Next(&tag, &ok)) static_cast<EchoCall*>(tag)->Proceed(ok);
  return 0;
}
