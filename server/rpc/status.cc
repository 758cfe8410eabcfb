#include "server/rpc/status.h"

#include <google/protobuf/stubs/common.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "google/rpc/error_details.pb.h"
#include "server/base/protocol.h"

namespace attend::server {
namespace {

// Together with the sentence, which appears twice, and the names of the messages these stay below
// kMaxStatusDetailsBytes.
constexpr std::size_t kMaxReasonBytes = 64;
constexpr std::size_t kMaxFieldBytes = 256;
constexpr std::size_t kMaxMetadataKeyBytes = 64;
constexpr std::size_t kMaxMetadataValueBytes = 512;
constexpr std::size_t kMaxMetadataBytes = 2048;  // Of all keys and values; entries beyond it are left out.

constexpr std::int64_t kMaxRetryDelayMs = 24 * 60 * 60 * 1000;

google::rpc::ErrorInfo MakeErrorInfo(const absl::Status& status, const ErrorDetails& details) {
  google::rpc::ErrorInfo info;
  info.set_reason(
      SafeUtf8(details.reason.empty() ? absl::StatusCodeToString(status.code()) : details.reason, kMaxReasonBytes));
  info.set_domain(kErrorDomain);
  std::size_t total = 0;
  for (const auto& [key, value] : details.metadata) {
    if (key == kRetryDelayKey) continue;
    const std::string safe_key = SafeUtf8(key, kMaxMetadataKeyBytes);
    const std::string safe_value = SafeUtf8(value, kMaxMetadataValueBytes);
    total += safe_key.size() + safe_value.size() + 8;  // Tags and lengths.
    if (total > kMaxMetadataBytes) break;
    (*info.mutable_metadata())[safe_key] = safe_value;
  }
  return info;
}

std::optional<google::rpc::RetryInfo> MakeRetryInfo(const ErrorDetails& details) {
  for (const auto& [key, value] : details.metadata) {
    std::int64_t ms = 0;
    if (key != kRetryDelayKey || !absl::SimpleAtoi(value, &ms) || ms < 0) continue;
    ms = std::min(ms, kMaxRetryDelayMs);
    google::rpc::RetryInfo info;
    info.mutable_retry_delay()->set_seconds(ms / 1000);
    info.mutable_retry_delay()->set_nanos(static_cast<std::int32_t>(ms % 1000) * 1000000);
    return info;
  }
  return std::nullopt;
}

google::rpc::BadRequest MakeBadRequest(std::string_view field, const std::string& description) {
  google::rpc::BadRequest bad_request;
  google::rpc::BadRequest::FieldViolation& violation = *bad_request.add_field_violations();
  violation.set_field(SafeUtf8(field, kMaxFieldBytes));
  violation.set_description(description);
  return bad_request;
}

}  // namespace

std::string SafeUtf8(std::string_view text, std::size_t max_bytes) {
  constexpr std::string_view kEllipsis = "...";
  const std::string prefix(text.substr(0, max_bytes));
  std::string safe(prefix.size(), '\0');
  const char* bytes = google::protobuf::internal::UTF8CoerceToStructurallyValid(prefix, safe.data(), '?');
  safe.assign(bytes, prefix.size());
  if (text.size() <= max_bytes) return safe;
  std::size_t cut = max_bytes - kEllipsis.size();
  while (cut > 0 && (static_cast<unsigned char>(safe[cut]) & 0xC0) == 0x80) --cut;  // Within a character.
  return safe.substr(0, cut).append(kEllipsis);
}

absl::Status BusyError(std::string_view reason, std::string_view why, std::int64_t delay_ms) {
  const absl::string_view text(why.data(), why.size());
  return WithDetails(
      absl::UnavailableError(absl::StrCat(text, "; try again in ", delay_ms, " ms")),
      {.reason = std::string(reason), .field = "", .metadata = {{kRetryDelayKey, absl::StrCat(delay_ms)}}});
}

absl::Status NoMessageError(absl::Duration timeout) {
  return WithDetails(
      absl::DeadlineExceededError(absl::StrCat("the call's first message did not arrive within ",
                                               absl::FormatDuration(timeout), " (--first-message-timeout)")),
      {.reason = reason::kNoMessage, .field = "", .metadata = {}});
}

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  google::rpc::Status rich;
  if (status.ok()) return rich;
  const ErrorDetails details = GetErrorDetails(status);
  const absl::string_view text = status.message();
  rich.set_code(static_cast<std::int32_t>(status.code()));
  rich.set_message(SafeUtf8({text.data(), text.size()}, kMaxStatusMessageBytes));
  rich.add_details()->PackFrom(MakeErrorInfo(status, details));
  if (absl::IsInvalidArgument(status)) rich.add_details()->PackFrom(MakeBadRequest(details.field, rich.message()));
  if (const std::optional<google::rpc::RetryInfo> retry = MakeRetryInfo(details)) rich.add_details()->PackFrom(*retry);
  return rich;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status rich = ToRpcStatus(status);
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), rich.message(), rich.SerializeAsString());
}

}  // namespace attend::server
