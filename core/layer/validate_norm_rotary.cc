#include "core/layer/validate_norm_rotary.h"

#include <cmath>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"

namespace attend {
namespace {

// `name` is `layer.query_norm` or `layer.key_norm`.
absl::Status ValidateNorm(const NormView& norm, const char* name, std::int64_t heads, std::int64_t head_dim) {
  const std::string weight = absl::StrCat(name, ".weight"), epsilon = absl::StrCat(name, ".epsilon");
  if (norm.weight == nullptr) {
    if (norm.bias == nullptr) return absl::OkStatus();
    return InvalidField(
        weight, absl::StrCat(weight, " is missing, but ", name, ".bias is given; send the weight too, or neither"));
  }
  if (norm.size != head_dim && norm.size != heads * head_dim) {
    const std::string shape = absl::StrCat(weight, ".shape");
    return InvalidField(shape, absl::StrCat(shape, " is [", norm.size, "]; it must be [", head_dim,
                                            "], one weight for each element of a head, or [", heads * head_dim,
                                            "], one for each element of all ", heads, " heads"));
  }
  if (!(norm.epsilon >= 0 && std::isfinite(norm.epsilon))) {
    return InvalidField(epsilon, absl::StrCat(epsilon, " is ", norm.epsilon, "; it must be finite and at least 0"));
  }
  return absl::OkStatus();
}

absl::Status ValidateRotary(const RotaryView& rotary, std::int64_t head_dim) {
  constexpr char kField[] = "layer.rotary.frequencies";
  const auto pairs = static_cast<std::int64_t>(rotary.frequencies.size());
  if (pairs > head_dim / 2) {
    return InvalidField(
        kField, absl::StrCat(kField, " has ", pairs, " entries, which turn ", 2 * pairs, " elements; a head has ",
                             head_dim, ", so there may be at most ", head_dim / 2));
  }
  if (!(rotary.factor > 0 && std::isfinite(rotary.factor))) {
    return InvalidField("layer.rotary.factor",
                        absl::StrCat("layer.rotary.factor is ", rotary.factor, "; it must be positive and finite"));
  }
  for (std::size_t i = 0; i < rotary.frequencies.size(); ++i) {
    if (std::abs(rotary.frequencies[i]) <= kMaxRotaryFrequency) continue;  // Not so for NaN.
    const std::string element = absl::StrCat(kField, "[", i, "]");
    return InvalidField(element, absl::StrCat(element, " is ", rotary.frequencies[i],
                                              "; it must be finite and between -2^64 and 2^64"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateNormsAndRotary(const LayerView& layer, std::int64_t head_dim) {
  absl::Status status = ValidateNorm(layer.query_norm, "layer.query_norm", layer.num_heads, head_dim);
  if (!status.ok()) return status;
  status = ValidateNorm(layer.key_norm, "layer.key_norm", layer.num_kv_heads, head_dim);
  return status.ok() ? ValidateRotary(layer.rotary, head_dim) : status;
}

absl::Status ValidatePositionOffset(std::int64_t position_offset) {
  if (position_offset >= 0 && position_offset <= kMaxPositionOffset) return absl::OkStatus();
  return InvalidField("position_offset", absl::StrCat("position_offset is ", position_offset,
                                                      "; it must be between 0 and ", kMaxPositionOffset));
}

}  // namespace attend
