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
#include "core/layer/layer_view.h"
#include "core/problem/options.h"
#include "core/problem/sdpa_problem.h"
#include "core/tensor/heads_view.h"

namespace attend {

// A dense batch of embeddings [batch, length, dim].
struct EmbeddingsView {
  const void* data = nullptr;  // Null means "absent".
  std::int64_t batch = 0;
  std::int64_t length = 0;
  std::int64_t dim = 0;
  DataType type = DataType::kFloat32;
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
    EmbeddingsView embeddings;       // [B, T, D]
    EmbeddingsView context;          // [B, S, D'], or absent: the embeddings.
    std::optional<LayerView> layer;  // None: query = embeddings, key = value = context, one head.
    // Of rotary embeddings, which others ignore: what is added to every position, in [0, kMaxPositionOffset].
    std::int64_t position_offset = 0;
    // Instead of it, one for each batch entry, or in a ragged batch one for each sequence. Empty: position_offset.
    absl::Span<const std::int64_t> position_offsets;
    AttentionOptions options;  // In self-attention Create sets query_lengths from valid_lengths,
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
  absl::Span<const std::int64_t> position_offsets() const { return spec_.position_offsets; }
  const AttentionOptions& options() const { return spec_.options; }

  AttentionShape shape() const { return {batch(), num_heads(), query_length(), key_length()}; }
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
