#include "tests/bench/core/sdpa.h"

#include <algorithm>
#include <cstdlib>

#include "tests/bench/core/harness.h"

namespace attend::bench {
namespace {

// Written once, so that the system has given its pages.
AlignedBuffer<float> Zeros(std::int64_t size) {
  AlignedBuffer<float> zeros(size);
  std::fill_n(zeros.data(), size, 0.0f);
  return zeros;
}

// About one key in eight is masked.
AlignedBuffer<std::uint8_t> Mask(std::int64_t size) {
  AlignedBuffer<std::uint8_t> mask(size);
  for (std::int64_t i = 0; i < size; ++i) mask[i] = i * 2654435761u % 8 != 0;
  return mask;
}

}  // namespace

Sdpa::Sdpa(const Shape& s)
    : query_(Numbers(s.heads * s.queries * s.dim)),
      key_(Numbers(s.kv_heads * s.keys * s.dim)),
      value_(Numbers(s.kv_heads * s.keys * s.dim)),
      output_(Zeros(s.heads * s.queries * s.dim)),
      weights_(Zeros(s.weights ? s.heads * s.queries * s.keys : 0)),
      mask_(Mask(s.mask ? s.queries * s.keys : 0)) {
  SdpaProblem::Spec spec;
  spec.query = SplitHeads<const float>(query_.data(), 1, s.heads, s.queries, s.dim);
  spec.key = SplitHeads<const float>(key_.data(), 1, s.kv_heads, s.keys, s.dim);
  spec.value = SplitHeads<const float>(value_.data(), 1, s.kv_heads, s.keys, s.dim);
  if (s.causal) spec.options.causal = CausalMode::kBottomRight;
  if (s.mask) spec.options.mask = SplitHeads<const std::uint8_t>(mask_.data(), 1, 1, s.queries, s.keys);
  problem_ = *SdpaProblem::Create(spec);
  outputs_.output = SplitHeads(output_.data(), 1, s.heads, s.queries, s.dim);
  if (s.weights) outputs_.attention_weights = SplitHeads(weights_.data(), 1, s.heads, s.queries, s.keys);
}

void Sdpa::Compute(Executor* executor) const {
  ComputeContext context;
  context.executor = executor;
  if (!ComputeSdpa(*problem_, outputs_, context).ok()) std::abort();
}

}  // namespace attend::bench
