// A validated problem of attention over embeddings: project to query, key and value, attend, project back.
//
// Types: FLOAT32, FLOAT16 and BFLOAT16 in any mixture, computed in FLOAT32; FLOAT64 goes with FLOAT64 alone.
//
// Immutable and non-owning: views must outlive it. May be shared between threads.
#ifndef ATTEND_CORE_LAYER_ATTEND_PROBLEM_H_
#define ATTEND_CORE_LAYER_ATTEND_PROBLEM_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/problem/options.h"
#include "core/problem/sdpa_problem.h"
#include "core/tensor/heads_view.h"

namespace attend {

class PackedLinear;

// A dense batch of embeddings [batch, length, dim].
struct EmbeddingsView {
  const void* data = nullptr;  // Null means "absent".
  std::int64_t batch = 0;
  std::int64_t length = 0;
  std::int64_t dim = 0;
  DataType type = DataType::kFloat32;
};

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
  // The same weights and bias, packed once (packed_linear.h) and used where the instruction set is theirs; null: packed
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
  float epsilon = 1e-6F;  // At least 0, finite.
  bool adds_one = false;  // Multiplies by 1 + weight.
};

inline constexpr double kMaxRotaryFrequency = 18446744073709551616.0;  // 2^64, in magnitude.
inline constexpr std::int64_t kMaxPositionOffset = std::int64_t{1} << 40;

// Rotary position embedding (Su et al. 2021, arXiv:2104.09864): pair i of a query or key at position p is turned by the
// angle p * frequencies[i] (radians; exact, then its sine and cosine within 4e-16): elements (x, y) become
// (x cos - y sin, y cos + x sin). Elements from dim on stay as they are. Query t stands where AttentionOptions says,
// key j at j, both after `position_offset`.
struct RotaryView {
  // [dim / 2] for an even dim in [2, E], each within kMaxRotaryFrequency of 0. Empty means "absent".
  absl::Span<const double> frequencies;
  bool interleaved = false;  // Pairs are elements (2i, 2i + 1); otherwise (i, i + dim / 2).
  double factor = 1;         // On each turned element; positive and finite.
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

// Where the results go; null or an absent view is not computed. The first four have the type of the embeddings.
struct AttendOutputs {
  void* output = nullptr;                   // [B, T, D_out], dense
  void* query = nullptr;                    // [B, H, T, E], dense
  void* key = nullptr;                      // [B, K, S, E], dense
  void* value = nullptr;                    // [B, K, S, V], dense
  MutableTypedHeadsView attention_weights;  // As SdpaOutputs.
  MutableTypedHeadsView averaged_weights;
  MutableTypedHeadsView scores;
  TopWeights top_weights;
  float* log_sum_exp = nullptr;  // [B, H, T], dense
};

class AttendProblem {
 public:
  struct Spec {
    EmbeddingsView embeddings;         // [B, T, D]
    EmbeddingsView context;            // [B, S, D'], or absent: the embeddings.
    std::optional<LayerView> layer;    // None: query = embeddings, key = value = context, one head.
    std::int64_t position_offset = 0;  // Of rotary embeddings, which others ignore; in [0, 2^40].
    AttentionOptions options;          // In self-attention Create sets query_lengths from key_lengths,
                                       // and cumulative_key_lengths from cumulative_query_lengths: leave them empty.
  };

  // Errors: INVALID_ARGUMENT with the field (`embeddings`, `layer.key_projection.weight`, `layer.num_heads`,
  // `options.mask`, ...).
  static absl::StatusOr<AttendProblem> Create(const Spec& spec);

  // Views the tensors of `spec` from now on. REQUIRES: it is what this was created from, but for the tensors'
  // addresses.
  void Rebind(const Spec& spec);

  bool is_double() const { return spec_.embeddings.type == DataType::kFloat64; }  // Of the arithmetic.
  bool self_attention() const { return !has_context_; }
  const EmbeddingsView& embeddings() const { return spec_.embeddings; }
  const EmbeddingsView& context() const { return spec_.context; }  // The embeddings in self-attention.
  const std::optional<LayerView>& layer() const { return spec_.layer; }
  std::int64_t position_offset() const { return spec_.position_offset; }
  const AttentionOptions& options() const { return spec_.options; }

  std::int64_t batch() const { return spec_.embeddings.batch; }
  std::int64_t query_length() const { return spec_.embeddings.length; }
  std::int64_t key_length() const { return spec_.context.length; }
  std::int64_t score_columns() const { return score_columns_; }  // As SdpaProblem.
  std::int64_t num_heads() const { return spec_.layer ? spec_.layer->num_heads : 1; }
  std::int64_t num_kv_heads() const { return spec_.layer ? spec_.layer->num_kv_heads : 1; }
  std::int64_t head_dim() const { return head_dim_; }      // E
  std::int64_t value_dim() const { return value_dim_; }    // V
  std::int64_t output_dim() const { return output_dim_; }  // D_out

  // An upper bound of the floating-point operations of computing it: projections and attention.
  double Flops() const;
  // As SdpaProblem::ScratchBytes, with the projected tensors.
  double ScratchBytes(int num_threads, bool consumes_weights) const;

 private:
  explicit AttendProblem(const Spec& spec) : spec_(spec) {}

  Spec spec_;
  bool has_context_ = false;
  std::int64_t head_dim_ = 0;
  std::int64_t value_dim_ = 0;
  std::int64_t output_dim_ = 0;
  std::int64_t score_columns_ = 0;
};

}  // namespace attend

#endif  // ATTEND_CORE_LAYER_ATTEND_PROBLEM_H_
