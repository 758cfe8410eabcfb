// The lists of lengths of a request: valid lengths of batch entries, and where the sequences of a ragged batch end.
//
// They are copied before a request is known to be right, because its rules look at them, so their number is bounded
// first. Pure functions; may be called concurrently.
#ifndef ATTEND_SERVER_REQUESTS_REQUEST_LENGTHS_H_
#define ATTEND_SERVER_REQUESTS_REQUEST_LENGTHS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/wire/request_reader.h"
#include "server/wire/wire_reader.h"

namespace attend::server {

// One list of lengths of a request: how many there are, and, once that is known to be a number that may be copied, what
// they are.
struct LengthList {
  std::int64_t count = 0;
  std::vector<std::int64_t> lengths;

  // The lengths; `count` times one that must not be read where they were not copied.
  absl::Span<const std::int64_t> View() const;
};

// The lists of lengths that AttentionOptions view. May be moved; views taken before stay valid.
struct Lengths {
  LengthList valid;
  LengthList cumulative_queries;
  LengthList cumulative_keys;

  std::int64_t NumBytes() const;  // Of the memory they take.
};

// The axes of a request's first tensor that bound how many lengths are copied; 0 when it is absent.
struct FirstAxes {
  std::int64_t batch = 0;
  std::int64_t queries = 0;
};

// Copies as many valid lengths as there are batch entries, and cumulative lengths that are not very many more than the
// queries, which bounds both by the request's own tensors. Errors: INVALID_ARGUMENT with the field below `options` for
// more cumulative lengths than that; another number of valid lengths is the core's to refuse.
absl::StatusOr<Lengths> CheckLengths(const RawOptions& raw, const WireBytes& bytes, const FirstAxes& first);

}  // namespace attend::server

#endif  // ATTEND_SERVER_REQUESTS_REQUEST_LENGTHS_H_
