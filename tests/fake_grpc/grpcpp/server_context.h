// grpc::ServerContext, for tests/fake_grpc.
#ifndef ATTEND_TESTS_FAKE_GRPC_GRPCPP_SERVER_CONTEXT_H_
#define ATTEND_TESTS_FAKE_GRPC_GRPCPP_SERVER_CONTEXT_H_

#include <grpc/support/time.h>
#include <grpcpp/security/auth_context.h>
#include <grpcpp/support/string_ref.h>

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <string>

namespace attend::fake_grpc {
class CallState;
class ServerState;
}  // namespace attend::fake_grpc

namespace grpc {

class GenericServerAsyncReaderWriter;

// What is known of a call is filled in on the thread that takes the event of its arrival. Thread-compatible.
class ServerContext {
 public:
  ServerContext() = default;
  ServerContext(const ServerContext&) = delete;
  ServerContext& operator=(const ServerContext&) = delete;

  std::chrono::system_clock::time_point deadline() const { return deadline_; }
  // Its nanoseconds are left out.
  gpr_timespec raw_deadline() const {
    const auto since = std::chrono::duration_cast<std::chrono::seconds>(deadline_.time_since_epoch());
    return {since.count(), 0, GPR_CLOCK_REALTIME};
  }
  const std::multimap<string_ref, string_ref>& client_metadata() const { return client_metadata_; }
  std::string peer() const { return "ipv4:127.0.0.1:1"; }
  // Nobody shows a certificate here.
  std::shared_ptr<const AuthContext> auth_context() const { return nullptr; }
  void AddTrailingMetadata(const std::string& key, const std::string& value) { trailers_.emplace(key, value); }
  // Ends the call as if its client had. Any thread, while the call is served.
  void TryCancel() const;
  // `tag` comes when the call has ended, whichever way. REQUIRES: the call was not requested yet.
  void AsyncNotifyWhenDone(void* tag) { done_tag_ = tag; }
  // Whether it ended otherwise than by its status. False until the tag of AsyncNotifyWhenDone is taken.
  bool IsCancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 protected:
  std::string method_;

 private:
  friend class attend::fake_grpc::CallState;
  friend class attend::fake_grpc::ServerState;
  friend class GenericServerAsyncReaderWriter;

  std::chrono::system_clock::time_point deadline_;
  std::multimap<string_ref, string_ref> client_metadata_;
  std::multimap<std::string, std::string> trailers_;
  void* done_tag_ = nullptr;
  std::weak_ptr<attend::fake_grpc::CallState> call_;
  std::atomic<bool> cancelled_{false};
};

// A call of any method.
class GenericServerContext final : public ServerContext {
 public:
  const std::string& method() const { return method_; }

 private:
  friend class attend::fake_grpc::CallState;
};

}  // namespace grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_GRPCPP_SERVER_CONTEXT_H_
