// Errors that say what is wrong, where, and why in machine-readable form.
//
// A core error is an absl::Status whose message is a full sentence for people and whose payloads carry the rest: the
// reason (a constant in UPPER_SNAKE_CASE), the path of the offending field (`query.shape[2]`) and named values. The
// server turns them into google.rpc.ErrorInfo and google.rpc.BadRequest.
//
//   return InvalidField("query.shape[2]", "query.shape[2] is 0; every axis must be at least 1");
//
// All functions are pure and may be called concurrently.
#ifndef ATTEND_CORE_BASE_ERROR_H_
#define ATTEND_CORE_BASE_ERROR_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace attend {

// What an error says to programs. An empty `reason` or `field` means "none given".
struct ErrorDetails {
  std::string reason;
  std::string field;
  std::vector<std::pair<std::string, std::string>> metadata;
};

// INVALID_ARGUMENT about one field of a request. `field` is its path, for example `options.valid_lengths[3]`.
absl::Status InvalidField(std::string_view field, std::string_view message);

// RESOURCE_EXHAUSTED: the request is larger than the limit that `flag` (`--max-request-bytes`) sets. `message` states
// both sizes.
absl::Status LimitExceeded(std::string_view flag, std::string_view message);

// Any error with its details attached. REQUIRES: !status.ok().
absl::Status WithDetails(absl::Status status, const ErrorDetails& details);

// The details attached to `status`; all empty when there are none.
ErrorDetails GetErrorDetails(const absl::Status& status);

// Prepends `prefix.` to the field path of `status`, if it has one: what a codec does with the error of a nested part.
absl::Status PrefixField(std::string_view prefix, absl::Status status);

}  // namespace attend

#endif  // ATTEND_CORE_BASE_ERROR_H_
