// Lists of integers of a request: first claims that are checked, then memory that the rules look at.
//
// A byte on the wire may be a number of eight bytes in memory. So lists are copied once the request's tensors are known
// to have contents, which bound them, and memory for all of them is asked for before.
#ifndef ATTEND_SERVER_REQUESTS_LENGTH_LIST_H_
#define ATTEND_SERVER_REQUESTS_LENGTH_LIST_H_

#include <cstdint>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/rpc/job.h"
#include "server/wire/request_reader.h"
#include "server/wire/wire_format.h"

namespace attend::server {

// One list: how many numbers there are, and, once copied, what they are. May be moved; views taken before stay valid
// where the numbers were copied.
class LengthList {
 public:
  LengthList() = default;
  // The list of `count` integers at `path`, as the reading pass counted them. `is_copied`: whether the numbers are to
  // be looked at; a number of them that is wrong is refused without.
  LengthList(const FieldPath& path, std::int64_t count, bool is_copied)
      : path_(path), count_(count), is_copied_(is_copied) {}

  std::int64_t count() const { return count_; }
  // Of the memory that Copy takes.
  std::int64_t num_bytes() const;

  // REQUIRES: `bytes` are those that were counted; called at most once.
  void Copy(const WireBytes& bytes);

  // The numbers; none before Copy and where they are not copied.
  absl::Span<const std::int64_t> numbers() const { return numbers_; }
  // The numbers; count() times one that must not be read where there are none.
  absl::Span<const std::int64_t> View() const;

 private:
  FieldPath path_ = {};
  std::int64_t count_ = 0;
  bool is_copied_ = false;
  std::vector<std::int64_t> numbers_;
};

// All lists of one request.
using LengthLists = absl::InlinedVector<LengthList*, 4>;

// Of the memory that CopyLists takes.
std::int64_t ListBytes(absl::Span<LengthList* const> lists);

// Copies all of `lists`, beside which the request itself is still there: memory is asked for both. Errors: those of
// `take_memory`; then nothing was copied. REQUIRES: as LengthList::Copy.
absl::Status CopyLists(const WireBytes& bytes, DecodeContext::TakeMemory take_memory,
                       absl::Span<LengthList* const> lists);

}  // namespace attend::server

#endif  // ATTEND_SERVER_REQUESTS_LENGTH_LIST_H_
