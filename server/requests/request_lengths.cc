#include "server/requests/request_lengths.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attend/v1/attention_service.pb.h"
#include "core/base/error.h"

namespace attend::server {
namespace {

// Stands for lengths of which only the number is looked at.
constexpr std::int64_t kNoLength = 0;

// The most sequences of a ragged batch whose lengths are copied, if it has no more queries: empty ones cost nothing
// else.
constexpr std::int64_t kMaxEmptySequences = 1 << 16;

LengthList GatherLengths(const WireBytes& bytes, int field_number, std::int64_t count, std::int64_t most) {
  LengthList list{count, {}};
  if (count == 0 || count > most) return list;
  list.lengths.reserve(static_cast<std::size_t>(count));
  const FieldPath path = FieldPath({v1::AttendRequest::kOptionsFieldNumber}) / static_cast<std::uint32_t>(field_number);
  VisitFields(WireReader(bytes), {path}, [&list](std::size_t, const WireReader& reader, const WireField& field) {
    VisitIntegers(reader, field, [&list](std::uint64_t length) {
      list.lengths.push_back(static_cast<std::int64_t>(length));
    }).IgnoreError();  // The reading pass has seen it.
  });
  return list;
}

}  // namespace

absl::Span<const std::int64_t> LengthList::View() const {
  return lengths.empty() ? absl::MakeConstSpan(&kNoLength, static_cast<std::size_t>(count))
                         : absl::MakeConstSpan(lengths);
}

std::int64_t Lengths::NumBytes() const {
  const std::size_t numbers = valid.lengths.size() + cumulative_queries.lengths.size() + cumulative_keys.lengths.size();
  return static_cast<std::int64_t>(numbers * sizeof(std::int64_t));
}

absl::StatusOr<Lengths> CheckLengths(const RawOptions& raw, const WireBytes& bytes, const FirstAxes& first) {
  using Options = v1::AttentionOptions;
  const std::int64_t most = std::max(first.queries, kMaxEmptySequences) + 1;
  for (const auto& [field, count] : {std::pair("options.cumulative_query_lengths", raw.num_cumulative_query_lengths),
                                     std::pair("options.cumulative_key_lengths", raw.num_cumulative_key_lengths)}) {
    if (count <= most) continue;
    return InvalidField(
        field, absl::StrCat(field, " has ", count, " entries; at most ", most, " are accepted with this many queries"));
  }
  Lengths lengths;
  if (raw.num_valid_lengths != 0) {
    // Of a wrong number only the number matters.
    const std::int64_t right = raw.num_valid_lengths == first.batch ? first.batch : 0;
    lengths.valid = GatherLengths(bytes, Options::kValidLengthsFieldNumber, raw.num_valid_lengths, right);
  }
  lengths.cumulative_queries =
      GatherLengths(bytes, Options::kCumulativeQueryLengthsFieldNumber, raw.num_cumulative_query_lengths, most);
  lengths.cumulative_keys =
      GatherLengths(bytes, Options::kCumulativeKeyLengthsFieldNumber, raw.num_cumulative_key_lengths, most);
  return lengths;
}

}  // namespace attend::server
