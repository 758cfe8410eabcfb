// A request as one line of JSON, for `attend batch`.
#ifndef ATTEND_CLIENT_CLI_REQUESTS_REQUEST_LINE_H_
#define ATTEND_CLIENT_CLI_REQUESTS_REQUEST_LINE_H_

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "client/cli/requests/computation.h"

namespace attend::client {

// The fields of attend.v1.AttendRequest, or of ScaledDotProductAttentionRequest in an object with `query`, under their
// names in the protocol. A tensor is nested lists of numbers or booleans, the name of a file as `--input` takes it, or
// an object {"shape", "values"}; an enumeration is its word, as in "bottom_right". `id` belongs to no request; who
// reads answers may use it. Errors: INVALID_ARGUMENT naming the field; those of reading files.
// With `from_stdin` the line itself comes from standard input, and a tensor `-` is refused: it would take the next
// line.
absl::StatusOr<ComputationRequest> ParseRequestLine(const nlohmann::json& line, bool from_stdin);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_REQUESTS_REQUEST_LINE_H_
