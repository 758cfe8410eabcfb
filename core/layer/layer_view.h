// The weights of an attention layer as non-owning views, and their rules.
#ifndef ATTEND_CORE_LAYER_LAYER_VIEW_H_
#define ATTEND_CORE_LAYER_LAYER_VIEW_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "core/base/limits.h"
#include "core/tensor/data_type.h"

namespace attend {

class PackedLinear;

// An affine map y = x . weight^T + bias, as torch.nn.Linear lays it out. Absent when it has neither weights nor packed
// ones.
struct LinearView {
  // [out_features, in_features], dense. May be null beside `packed`: then the problem REQUIRES to be computed with the
  // instruction set of that, and has no float64 reference.
  const void* weight = nullptr;
  const void* bias = nullptr;  // [out_features], or null for none.
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;
  DataType weight_type = DataType::kFloat32;
  DataType bias_type = DataType::kFloat32;
  // The same weights and bias, packed once (projection.h) and used where the instruction set is theirs; null: packed
  // in each call.
  const PackedLinear* packed = nullptr;

  bool present() const { return weight != nullptr || packed != nullptr; }
};

// How the elements of a head are normalised over a row of them; `weight` and `bias` are [E], the same for each head, or
// [heads * E], one mean or variance over all heads of a token.
enum class NormKind : std::uint8_t {
  kRms,    // x / sqrt(mean(x^2) + epsilon) (Zhang & Sennrich 2019, arXiv:1910.07467).
  kLayer,  // (x - mean(x)) / sqrt(variance(x) + epsilon) (Ba et al. 2016, arXiv:1607.06450).
};
struct NormView {
  const float* weight = nullptr;  // Null means "absent": no norm.
  const float* bias = nullptr;    // Null for none.
  std::int64_t size = 0;          // Of weight and bias: E, or heads * E.
  NormKind kind = NormKind::kRms;
  double epsilon = 1e-6;  // At least 0, finite.
  bool adds_one = false;  // Multiplies by 1 + weight.
};

// Rotary position embedding (Su et al. 2021, arXiv:2104.09864): pair i of a query or key at position p is rotated by
// the angle p * frequencies[i] (radians; exact, then its sine and cosine within 4e-16): elements (x, y) become (x cos -
// y sin, y cos + x sin). Elements from dim on stay as they are. Query t has the position of AttentionOptions, key j the
// position j, both plus the problem's position offset.
struct RotaryView {
  // [dim / 2] for an even dim in [2, E], each within kMaxRotaryFrequency of 0. Empty means "absent".
  absl::Span<const double> frequencies;
  bool interleaved = false;  // Pairs are elements (2i, 2i + 1); otherwise (i, i + dim / 2).
  double factor = 1;         // On each rotated element; positive and finite.
};

// The weights of an attention layer.
struct LayerView {
  LinearView query;   // [H * E, D]
  LinearView key;     // [K * E, D']
  LinearView value;   // [K * V, D']
  LinearView output;  // [D_out, H * V], or absent: heads are concatenated.
  std::int64_t num_heads = 1;
  std::int64_t num_kv_heads = 1;
  // Applied to the projected query and key in this order, or with the rotary embedding before the norms; returned
  // queries and keys have all behind them.
  NormView query_norm;
  NormView key_norm;
  RotaryView rotary;
  bool norms_after_rotary = false;
};

// The tokens that a layer is applied to.
struct LayerTokens {
  DataType type = DataType::kFloat32;
  std::int64_t query_dim = 0;    // D
  std::int64_t context_dim = 0;  // D'
  bool has_context = false;      // Otherwise errors speak of the embeddings.
};

// Checks the numbers of heads, which come before everything that is counted in heads. `owner` is the message that has
// them, `layer` or `config`. Errors: INVALID_ARGUMENT with the field `OWNER.num_heads` or `OWNER.num_kv_heads`.
absl::Status ValidateHeadCounts(const LayerView& layer, std::string_view owner);

// How errors name what is not a tensor of the layer.
struct LayerFieldNames {
  const char* heads = "layer";                      // The message that has the numbers of heads.
  const char* rotary = "layer.rotary";              // The rotary embedding.
  const char* other_type = "embeddings.data_type";  // What the types of weights must go with.
};

// Checks the layer by itself and against what it is applied to. Weights and biases may be NaN or infinite, scalars and
// frequencies may not.
//
// Errors: INVALID_ARGUMENT with the field (`layer.num_heads`, `layer.key_projection.weight.shape`,
// `layer.query_norm.epsilon`, `layer.rotary.frequencies[3]`, ...). Pure; may be called concurrently.
absl::Status ValidateLayer(const LayerView& layer, const LayerTokens& tokens, const LayerFieldNames& names = {});

// Checks that a tensor's type is one of numbers, and FLOAT64 only beside FLOAT64. `field` is the tensor's, and
// `other_type` is found at `other_field`.
// Errors: INVALID_ARGUMENT with the field `FIELD.data_type`.
absl::Status ValidateTensorType(const char* field, DataType type, DataType other_type,
                                const char* other_field = "embeddings.data_type");

}  // namespace attend

#endif  // ATTEND_CORE_LAYER_LAYER_VIEW_H_
