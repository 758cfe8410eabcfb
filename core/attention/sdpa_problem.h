// A validated scaled dot-product attention problem: once created, computing it cannot fail.
//
//   absl::StatusOr<SdpaProblem> problem = SdpaProblem::Create({.query = q, .key = k, .value = v, .options = options});
//
// Shapes: query [B, H, T, E], key [B, K, S, E], value [B, K, S, V]; H is a multiple of K, and query head h uses
// key/value head h / (H / K). All axes are at least 1.
//
// Immutable and non-owning: views must outlive it. May be shared between threads.
#ifndef ATTEND_CORE_ATTENTION_SDPA_PROBLEM_H_
#define ATTEND_CORE_ATTENTION_SDPA_PROBLEM_H_

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/attention/key_visibility.h"
#include "core/attention/options.h"
#include "core/tensor/heads_view.h"

namespace attend {

// Where the results go; an absent view is not computed. All rows are written, also fully masked ones.
struct SdpaOutputs {
  MutableHeadsView output;             // [B, H, T, V]
  MutableHeadsView attention_weights;  // [B, H, T, S]
  MutableHeadsView averaged_weights;   // [B, 1, T, S]: the mean of the above over H
  MutableHeadsView scores;             // [B, H, T, S]: logits entering the softmax, -inf where masked
  float* log_sum_exp = nullptr;        // [B, H, T], dense; natural logarithm
};

class SdpaProblem {
 public:
  struct Spec {
    HeadsView query;
    HeadsView key;
    HeadsView value;
    AttentionOptions options;
  };

  using KeyRange = attend::KeyRange;

  // Errors: INVALID_ARGUMENT with the field (`query`, `key`, `options.valid_lengths[2]`, ...) when shapes disagree, an
  // option is out of its range, or a view is absent.
  static absl::StatusOr<SdpaProblem> Create(const Spec& spec);

  std::int64_t batch() const { return spec_.query.batch; }
  std::int64_t num_heads() const { return spec_.query.heads; }
  std::int64_t num_kv_heads() const { return spec_.key.heads; }
  std::int64_t group_size() const { return num_heads() / num_kv_heads(); }  // Query heads per key/value head.
  std::int64_t query_length() const { return spec_.query.length; }
  std::int64_t key_length() const { return spec_.key.length; }
  std::int64_t head_dim() const { return spec_.query.dim; }
  std::int64_t value_dim() const { return spec_.value.dim; }

  const HeadsView& query() const { return spec_.query; }
  const HeadsView& key() const { return spec_.key; }
  const HeadsView& value() const { return spec_.value; }
  const AttentionOptions& options() const { return spec_.options; }

  float scale() const { return scale_; }  // The given scale, or 1/sqrt(head_dim).

  // S' of batch entry b.
  std::int64_t ValidKeys(std::int64_t b) const;
  // p - t: where query 0 of batch entry b stands among the keys; negative when there are more queries than keys.
  std::int64_t PositionOffset(std::int64_t b) const;
  // The keys that query t of batch entry b may see before the boolean mask is looked at: what causality, window and
  // lengths leave.
  KeyRange VisibleKeys(std::int64_t b, std::int64_t t) const;

  // An upper bound of the floating-point operations of computing it, for limits and scheduling: 2 (E + V) per
  // query-key pair that causality and window leave alive, or would without lengths.
  double Flops() const;

  // An upper bound of the bytes that computing it allocates beyond inputs and outputs, with `num_threads` threads;
  // `averages_weights` when averaged weights are wanted and those of each head are not.
  double ScratchBytes(int num_threads, bool averages_weights) const;

 private:
  explicit SdpaProblem(const Spec& spec, float scale) : spec_(spec), scale_(scale) {}

  Spec spec_;
  float scale_;
};

}  // namespace attend

#endif  // ATTEND_CORE_ATTENTION_SDPA_PROBLEM_H_
