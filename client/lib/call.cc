#include "client/lib/call.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/lib/server_error.h"

namespace attend::client::internal {

absl::Status CheckTimeout(const CallOptions& options) {
  if (options.timeout > absl::ZeroDuration() && options.timeout < absl::InfiniteDuration()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the timeout is ", absl::FormatDuration(options.timeout), "; it must be positive and finite"));
}

absl::Status CheckSize(const google::protobuf::Message& message, std::int64_t max_bytes) {
  const std::size_t bytes = message.ByteSizeLong();
  if (bytes <= static_cast<std::size_t>(max_bytes)) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the message has ", bytes, " bytes; this client sends at most ", max_bytes, " (max_message_bytes)"));
}

void Prepare(const CallOptions& options, grpc::ClientContext* context) {
  context->set_wait_for_ready(options.wait_for_ready);
  if (options.timeout == absl::InfiniteDuration()) return;
  context->set_deadline(absl::ToChronoTime(absl::Now() + options.timeout));
}

std::string ServerTimingOf(const grpc::ClientContext& context) {
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto found = trailers.find("server-timing");
  return found == trailers.end() ? std::string() : std::string(found->second.data(), found->second.size());
}

// gRPC's codes and Abseil's are the same numbers with the same meanings.
absl::Status ToStatus(const grpc::Status& status, const grpc::ClientContext& context) {
  if (status.ok()) return absl::OkStatus();
  return WithServerError(absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message()),
                         status.error_details(), ServerTimingOf(context));
}

}  // namespace attend::client::internal
