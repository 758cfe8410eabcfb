// How queries look at keys: the options of scaled dot-product attention, as plain values.
#ifndef ATTEND_CORE_ATTENTION_OPTIONS_H_
#define ATTEND_CORE_ATTENTION_OPTIONS_H_

#include <cstdint>
#include <optional>

#include "absl/types/span.h"
#include "core/tensor/heads_view.h"

namespace attend {

// Which keys the causal mask leaves to query t (0-based), with T' valid queries and S' valid keys of its batch entry.
enum class CausalMode : std::uint8_t {
  kNone,
  kBottomRight,  // Key j is visible when j <= t + S' - T'.
  kTopLeft,      // Key j is visible when j <= t.
};

// Steps in order of application: scale, softcap, bias and ALiBi, masks, sink, softmax (Vaswani et al. 2017,
// arXiv:1706.03762). The position p of query t is t + S' - T', or t with kTopLeft.
//
// An axis of size 1 of mask or bias is repeated, as is one of stride 0.
//
// All views and spans are non-owning and must outlive the problem built from them.
struct AttentionOptions {
  std::optional<float> scale;  // Finite. Default 1/sqrt(head_dim).
  CausalMode causal = CausalMode::kNone;
  std::optional<std::int64_t> sliding_window_left;   // Key j visible when j >= p - left; >= 0.
  std::optional<std::int64_t> sliding_window_right;  // Key j visible when j <= p + right; >= 0.
  std::optional<float> softcap;                      // Positive, finite: x -> softcap * tanh(x / softcap).
  absl::Span<const std::int64_t> key_lengths;        // S' per batch entry, each in [0, S]; empty: all S.
  absl::Span<const std::int64_t> query_lengths;      // T' per batch entry, each in [0, T]; empty: all T. Only moves p.
  // A ragged batch: sequences laid end to end along T and S of the one batch entry. For N sequences N + 1 offsets each,
  // from 0 to T and to S: sequence n has the queries [cumulative_query_lengths[n], cumulative_query_lengths[n + 1]),
  // which see its keys alone, and whose positions are counted within it. Both empty: one sequence. They go without
  // key_lengths and query_lengths. Views of shape [.., T, S] then have a column for each key of the longest sequence,
  // column j being key j of the row's own sequence.
  absl::Span<const std::int64_t> cumulative_query_lengths;
  absl::Span<const std::int64_t> cumulative_key_lengths;
  MaskView mask;  // [B, H, T, S], broadcast by zero strides; non-zero is visible. Absent: all visible.
  // [B, H, T, S], broadcast by zero strides; added after softcap. FLOAT32, or FLOAT64 where query is. Absent: none.
  TypedHeadsView bias;
  absl::Span<const float> alibi_slopes;  // [H]: adds -slope * |p - j|. Empty: none.
  absl::Span<const float> sinks;         // [H]: a logit in the denominator alone. Empty: none.
};

}  // namespace attend

#endif  // ATTEND_CORE_ATTENTION_OPTIONS_H_
