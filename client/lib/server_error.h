// What a server's refusal says to programs, unpacked from google.rpc error details.
//
//   absl::StatusOr<CallResult<v1::AttendResponse>> answer = client.Attend(request, options);
//   if (!answer.ok()) {
//     const ServerError error = GetServerError(answer.status());
//     for (const FieldViolation& violation : error.field_violations) Report(violation.field, violation.description);
//     if (error.retry_delay.has_value()) TryAgainAfter(*error.retry_delay);
//   }
//
// Pure; may be called concurrently.
#ifndef ATTEND_CLIENT_LIB_SERVER_ERROR_H_
#define ATTEND_CLIENT_LIB_SERVER_ERROR_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/lib/server_timing.h"

namespace attend::client {

// One field of the request that the server refused.
struct FieldViolation {
  std::string field;        // `query.shape[2]`; empty when the message as a whole is wrong.
  std::string description;  // What is wrong with it and what was expected.
};

// Everything here is empty when the error did not come from an attend server: a connection that was refused, a
// deadline that passed on the way, a mistake found before sending.
struct ServerError {
  std::string reason;                            // `INVALID_FIELD`, ... (google.rpc.ErrorInfo)
  std::string domain;                            // `attend.v1`
  std::map<std::string, std::string> metadata;   // `flag` -> `--max-request-bytes`, ...
  std::vector<FieldViolation> field_violations;  // google.rpc.BadRequest
  std::optional<absl::Duration> retry_delay;     // google.rpc.RetryInfo: the least time to wait.
  std::vector<StageTime> server_timing;          // Where the refused call spent its time.
};

// What `status`, returned by a Client, carries.
ServerError GetServerError(const absl::Status& status);

// True when a server answered the call with this error, as opposed to the network, the deadline or this process.
bool AnsweredByServer(const absl::Status& status);

namespace internal {

// Attaches a serialized google.rpc.Status (the trailer `grpc-status-details-bin`) and the trailer `server-timing` to
// `status`. Details that do not parse are left out: an error never becomes another one for being badly described.
absl::Status WithServerError(absl::Status status, const std::string& status_details, const std::string& server_timing);

}  // namespace internal
}  // namespace attend::client

#endif  // ATTEND_CLIENT_LIB_SERVER_ERROR_H_
