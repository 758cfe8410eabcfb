// A validated scaled dot-product attention problem: once created, computing it cannot fail.
//
//   absl::StatusOr<SdpaProblem> problem = SdpaProblem::Create({.query = q, .key = k, .value = v, .options = options});
//
// Shapes: query [B, H, T, E], key [B, K, S, E], value [B, K, S, V]; H is a multiple of K, and query head h uses
// key/value head h / (H / K). All axes are at least 1.
//
// Types: FLOAT32, FLOAT16 and BFLOAT16 in any mixture, for example a 16-bit key/value cache under FLOAT32 queries; the
// arithmetic is FLOAT32 then. FLOAT64 goes with FLOAT64 alone, also in arithmetic.
//
// Key and value, each by itself, may also be INT8 beside scales [B, K, S, 1] in FLOAT32. Such a problem is the one
// whose row j is float(row[d]) * scale[j], each product rounded once to FLOAT32, and has its bits.
//
// Immutable and non-owning: views must outlive it. May be shared between threads.
#ifndef ATTEND_CORE_PROBLEM_SDPA_PROBLEM_H_
#define ATTEND_CORE_PROBLEM_SDPA_PROBLEM_H_

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/problem/key_visibility.h"
#include "core/problem/options.h"
#include "core/tensor/heads_view.h"

namespace attend {

// The k largest attention weights of each row, as SelectTopWeights finds them (top_weights.h).
struct TopWeights {
  MutableTypedHeadsView weights;         // [B, H, T, k], or [B, 1, T, k] for those of the mean over H
  BasicHeadsView<std::int32_t> indices;  // The same shape: the keys they belong to, -1 for none.

  explicit operator bool() const { return static_cast<bool>(weights); }
};

// Where the results go; results with an absent view are not computed. Every row is written, also a fully masked one.
//
// In a ragged batch S is score_columns(). The type of `output` is any that the arithmetic can be rounded to: FLOAT64
// for FLOAT64, FLOAT32, FLOAT16 or BFLOAT16 otherwise. The other views have the type of the arithmetic, FLOAT32 or
// FLOAT64: rounding them would gain nothing.
struct SdpaOutputs {
  MutableTypedHeadsView output;             // [B, H, T, V]
  MutableTypedHeadsView attention_weights;  // [B, H, T, S]
  MutableTypedHeadsView averaged_weights;   // [B, 1, T, S]: the mean of the above over H
  MutableTypedHeadsView scores;             // [B, H, T, S]: logits entering the softmax, -inf where masked
  TopWeights top_weights;
  float* log_sum_exp = nullptr;         // [B, H, T]; natural logarithm
  std::int64_t log_sum_exp_stride = 0;  // From head to head; 0 for T, which makes it dense.
};

class SdpaProblem {
 public:
  struct Spec {
    TypedHeadsView query;
    TypedHeadsView key;
    TypedHeadsView value;
    AttentionOptions options;
    HeadsView key_scales = {};  // Of an INT8 key, and absent for any other; likewise below.
    HeadsView value_scales = {};
  };

  using KeyRange = attend::KeyRange;

  // Errors: INVALID_ARGUMENT with the field (`query`, `key`, `options.valid_lengths[2]`, ...) when shapes disagree, an
  // option is out of its range, or a view is absent. Scales are not read.
  static absl::StatusOr<SdpaProblem> Create(const Spec& spec);

  // Views the tensors of `spec` from now on. REQUIRES: `spec` differs from that of Create in the tensors' addresses
  // alone.
  void Rebind(const Spec& spec);

  std::int64_t batch() const { return spec_.query.batch; }
  std::int64_t num_heads() const { return spec_.query.heads; }
  std::int64_t num_kv_heads() const { return spec_.key.heads; }
  std::int64_t group_size() const { return num_heads() / num_kv_heads(); }  // Query heads per key/value head.
  std::int64_t query_length() const { return spec_.query.length; }
  std::int64_t key_length() const { return spec_.key.length; }
  // Of tensors [B, H, T, S]: key_length(), or in a ragged batch the most keys of a sequence.
  std::int64_t score_columns() const { return score_columns_; }
  std::int64_t head_dim() const { return spec_.query.dim; }
  std::int64_t value_dim() const { return spec_.value.dim; }

  const TypedHeadsView& query() const { return spec_.query; }
  const TypedHeadsView& key() const { return spec_.key; }
  const TypedHeadsView& value() const { return spec_.value; }
  const HeadsView& key_scales() const { return spec_.key_scales; }
  const HeadsView& value_scales() const { return spec_.value_scales; }
  const AttentionOptions& options() const { return spec_.options; }

  bool is_double() const { return spec_.query.type == DataType::kFloat64; }  // Of the arithmetic.
  // The given scale, or 1/sqrt(head_dim) rounded to the type of the arithmetic.
  double scale() const { return scale_; }

  // S' of batch entry b.
  std::int64_t ValidKeys(std::int64_t b) const;
  // p - t: the position of query 0 of batch entry b; negative when there are more queries than keys.
  std::int64_t PositionOffset(std::int64_t b) const;
  // The keys that causality, window and lengths leave to query t of batch entry b, whatever the masks say.
  KeyRange VisibleKeys(std::int64_t b, std::int64_t t) const;

  // An upper bound of the floating-point operations of computing it, for limits and scheduling: 2 (E + V) per
  // query-key pair that causality and window leave visible, counted as if all keys were valid.
  double Flops() const;

  // Sequence n of a ragged batch (sequences.h) as a problem by itself. REQUIRES: the sequence has queries.
  SdpaProblem SequenceAlone(std::int64_t n) const;

 private:
  SdpaProblem(const Spec& spec, double scale);

  Spec spec_;
  double scale_;
  std::int64_t score_columns_;
};

// Where the log-sum-exp of query t goes. REQUIRES: outputs.log_sum_exp != nullptr.
inline float* LogSumExpOf(const SdpaProblem& problem, const SdpaOutputs& outputs, std::int64_t b, std::int64_t h,
                          std::int64_t t) {
  const std::int64_t stride = outputs.log_sum_exp_stride == 0 ? problem.query_length() : outputs.log_sum_exp_stride;
  return outputs.log_sum_exp + (b * problem.num_heads() + h) * stride + t;
}

}  // namespace attend

#endif  // ATTEND_CORE_PROBLEM_SDPA_PROBLEM_H_
