// Makes one unary call by path and bytes, and keeps all that came back: for tests that look at what travels rather than
// at generated classes.
//
// Thread-safe.
#ifndef ATTEND_TESTS_SUPPORT_RAW_CALL_H_
#define ATTEND_TESTS_SUPPORT_RAW_CALL_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/byte_buffer.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>

namespace attend::testing {

// The trailer server-timing of every call: one duration for each station, in milliseconds.
inline constexpr char kTimingPattern[] =
    "receive;dur=[0-9]+\\.[0-9]+, queue;dur=[0-9]+\\.[0-9]+, compute;dur=[0-9]+\\.[0-9]+, send;dur=[0-9]+\\.[0-9]+";

struct RawAnswer {
  grpc::Status status;
  std::string response;  // Empty unless the status is OK.
  std::multimap<std::string, std::string> trailers;

  // The first trailer of that name; empty when there is none.
  std::string trailer(const std::string& name) const {
    const auto found = trailers.find(name);
    return found == trailers.end() ? "" : found->second;
  }
};

struct RawCallOptions {
  // No call of a test waits for ever.
  std::chrono::milliseconds timeout = std::chrono::seconds(30);
  // The call's own context, for who cancels from another thread: it must outlive TryCancel. Null: made here.
  std::shared_ptr<grpc::ClientContext> context = nullptr;
  // Called when the call is on its way, with its context: to cancel it from another thread.
  std::function<void(grpc::ClientContext&)> on_started;
};

// Calls `path` (`/attend.v1.AttentionService/GetServerInfo`) with `request` as the serialized message.
RawAnswer CallRaw(const std::shared_ptr<grpc::Channel>& channel, const std::string& path, const std::string& request,
                  const RawCallOptions& options = {});

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_RAW_CALL_H_
