#include "client/cli/results/nan_warning.h"

#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace attend::client {
namespace {

struct NanCount {
  std::int64_t rows = 0;
  std::int64_t rows_with_nan = 0;
  bool all = true;  // Every number is NaN.
};

// A number is NaN when its bits without the sign are above those of infinity.
template <typename Bits>
NanCount Count(const std::string& bytes, std::int64_t columns, Bits infinity) {
  constexpr Bits kMagnitude = static_cast<Bits>(~Bits{0}) >> 1;
  NanCount count{.rows = static_cast<std::int64_t>(bytes.size() / sizeof(Bits)) / columns};
  const char* next = bytes.data();
  for (std::int64_t row = 0; row < count.rows; ++row) {
    bool any = false;
    for (std::int64_t column = 0; column < columns; ++column, next += sizeof(Bits)) {
      Bits bits;
      std::memcpy(&bits, next, sizeof bits);
      const bool is_nan = (bits & kMagnitude) > infinity;
      any = any || is_nan;
      count.all = count.all && is_nan;
    }
    count.rows_with_nan += any ? 1 : 0;
  }
  return count;
}

NanCount CountNan(const Tensor& tensor, std::int64_t columns) {
  switch (tensor.type()) {
    case ElementType::kFloat16: return Count<std::uint16_t>(tensor.bytes(), columns, 0x7c00);
    case ElementType::kBFloat16: return Count<std::uint16_t>(tensor.bytes(), columns, 0x7f80);
    case ElementType::kFloat32: return Count<std::uint32_t>(tensor.bytes(), columns, 0x7f800000);
    case ElementType::kFloat64: return Count<std::uint64_t>(tensor.bytes(), columns, 0x7ff0000000000000);
    default: return {};  // Integers have none.
  }
}

}  // namespace

std::string NanWarning(const NamedTensor& entry) {
  if (entry.tensor.num_elements() == 0) return "";
  // A log-sum-exp is one number for each query: its last axis counts rows already.
  const bool one_per_row = entry.name == "log_sum_exp" || entry.tensor.shape().empty();
  const NanCount count = CountNan(entry.tensor, one_per_row ? 1 : entry.tensor.shape().back());
  if (count.rows_with_nan == 0) return "";
  const std::string what = count.all ? "is nothing but NaN" : "holds NaN";
  return absl::StrCat(entry.name, " ", what, " (", count.rows_with_nan, " of ", count.rows,
                      one_per_row ? " numbers" : " rows", "); look for NaN and infinities in what was sent");
}

}  // namespace attend::client
