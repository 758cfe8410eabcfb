#include "core/base/error.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"

namespace attend {
namespace {

constexpr char kReasonUrl[] = "attend/reason";
constexpr char kFieldUrl[] = "attend/field";
constexpr char kMetadataPrefix[] = "attend/metadata/";

std::string Payload(const absl::Status& status, const char* url) {
  const absl::optional<absl::Cord> payload = status.GetPayload(url);
  return payload.has_value() ? std::string(*payload) : std::string();
}

absl::string_view ToAbsl(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

absl::Status InvalidField(std::string_view field, std::string_view message) {
  return WithDetails(absl::InvalidArgumentError(ToAbsl(message)), {"INVALID_FIELD", std::string(field), {}});
}

absl::Status LimitExceeded(std::string_view flag, std::string_view message) {
  return WithDetails(absl::ResourceExhaustedError(ToAbsl(message)),
                     {"LIMIT_EXCEEDED", "", {{"flag", std::string(flag)}}});
}

absl::Status WithDetails(absl::Status status, const ErrorDetails& details) {
  if (!details.reason.empty()) status.SetPayload(kReasonUrl, absl::Cord(details.reason));
  if (!details.field.empty()) status.SetPayload(kFieldUrl, absl::Cord(details.field));
  for (const auto& [key, value] : details.metadata) {
    status.SetPayload(absl::StrCat(kMetadataPrefix, key), absl::Cord(value));
  }
  return status;
}

ErrorDetails GetErrorDetails(const absl::Status& status) {
  ErrorDetails details{Payload(status, kReasonUrl), Payload(status, kFieldUrl), {}};
  status.ForEachPayload([&details](absl::string_view url, const absl::Cord& value) {
    constexpr absl::string_view kPrefix = kMetadataPrefix;
    if (url.substr(0, kPrefix.size()) != kPrefix) return;
    details.metadata.emplace_back(std::string(url.substr(kPrefix.size())), std::string(value));
  });
  return details;
}

absl::Status PrefixField(std::string_view prefix, absl::Status status) {
  const std::string field = Payload(status, kFieldUrl);
  if (!field.empty()) status.SetPayload(kFieldUrl, absl::Cord(absl::StrCat(ToAbsl(prefix), ".", field)));
  return status;
}

}  // namespace attend
