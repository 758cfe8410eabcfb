#include "server/requests/length_list.h"

#include <cstddef>

namespace attend::server {
namespace {

// Stands for numbers of which only the count is looked at.
constexpr std::int64_t kNoNumber = 0;

}  // namespace

std::int64_t LengthList::num_bytes() const {
  return is_copied_ ? count_ * static_cast<std::int64_t>(sizeof(std::int64_t)) : 0;
}

void LengthList::Copy(const WireBytes& bytes) {
  if (!is_copied_) return;
  numbers_.reserve(static_cast<std::size_t>(count_));
  VisitFields(WireReader(bytes), {path_}, [this](std::size_t, const WireReader& reader, const WireField& part) {
    VisitIntegers(reader, part, [this](std::uint64_t number) {
      numbers_.push_back(static_cast<std::int64_t>(number));
    }).IgnoreError();  // The reading pass has seen it.
  });
}

absl::Span<const std::int64_t> LengthList::View() const {
  return numbers_.empty() ? absl::MakeConstSpan(&kNoNumber, static_cast<std::size_t>(count_)) : numbers();
}

std::int64_t ListBytes(absl::Span<LengthList* const> lists) {
  std::int64_t bytes = 0;
  for (const LengthList* list : lists) bytes += list->num_bytes();
  return bytes;
}

absl::Status CopyLists(const WireBytes& bytes, DecodeContext::TakeMemory take_memory,
                       absl::Span<LengthList* const> lists) {
  const std::int64_t list_bytes = ListBytes(lists);
  if (list_bytes == 0) return absl::OkStatus();
  if (absl::Status s = take_memory(static_cast<double>(bytes.size() + list_bytes)); !s.ok()) return s;
  for (LengthList* list : lists) list->Copy(bytes);
  return absl::OkStatus();
}

}  // namespace attend::server
