#include "client/cli/commands/report.h"

#include <iostream>

#include "absl/time/time.h"
#include "client/cli/connection/endpoint_probe.h"
#include "client/lib/server_error.h"

namespace attend::client {
namespace {

bool IsNetworkError(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled: return true;
    case absl::StatusCode::kUnavailable: return !AnsweredByServer(status);
    default: return false;
  }
}

}  // namespace

ExitCode ReportUsage(const absl::Status& status) {
  std::cerr << "attend: " << status.message() << "\n";
  return kExitUsage;
}

ExitCode ReportConnect(const absl::Status& status) {
  ReportUsage(status);
  return absl::IsUnavailable(status) ? kExitNetwork : kExitUsage;
}

ExitCode ReportResult(const absl::Status& status) {
  ReportUsage(status);
  if (absl::IsInternal(status)) return kExitServer;
  return absl::IsUnknown(status) ? kExitLocal : kExitUsage;
}

ExitCode ReportCall(const absl::Status& status, const ConnectionFlags& flags) {
  const std::string cause = IsNetworkError(status) && !AnsweredByServer(status) ? DiagnoseConnection(flags) : "";
  std::cerr << "attend: " << absl::StatusCodeToString(status.code()) << ": "
            << (cause.empty() ? std::string(status.message()) : cause) << "\n";
  const ServerError error = GetServerError(status);
  if (!error.reason.empty()) std::cerr << "  reason: " << error.reason << " (" << error.domain << ")\n";
  for (const auto& [name, value] : error.metadata) std::cerr << "  " << name << ": " << value << "\n";
  for (const FieldViolation& violation : error.field_violations) {
    // Without a field it is about the whole message, and the error's own sentence has said it.
    if (!violation.field.empty()) std::cerr << "  field " << violation.field << ": " << violation.description << "\n";
  }
  if (error.retry_delay.has_value()) std::cerr << "  try again in " << absl::FormatDuration(*error.retry_delay) << "\n";
  return IsNetworkError(status) ? kExitNetwork : kExitServer;
}

}  // namespace attend::client
