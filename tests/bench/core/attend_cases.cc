// Attention over embeddings as the notebook does it: three projections whose weights come along, output and weights;
// and as a named layer does it.
#include <cstdlib>
#include <optional>
#include <vector>

#include "core/layer/compute_attend.h"
#include "core/layer/projection.h"
#include "tests/bench/core/cases.h"
#include "tests/bench/core/harness.h"

namespace attend::bench {
namespace {

class Attend {
 public:
  Attend(std::int64_t tokens, std::int64_t dim)
      : embeddings_(Numbers(tokens * dim)),
        weight_(Numbers(3 * dim * dim)),
        bias_(Numbers(dim)),
        output_(tokens * dim),
        weights_(tokens * tokens) {
    AttendProblem::Spec spec;
    spec.embeddings = {embeddings_.data(), 1, tokens, dim};
    const auto linear = [&](int i) { return LinearView{weight_.data() + i * dim * dim, bias_.data(), dim, dim}; };
    spec.layer = LayerView{linear(0), linear(1), linear(2), {}, 1, 1};
    problem_ = *AttendProblem::Create(spec);
    outputs_.output = output_.data();
    outputs_.attention_weights = SplitHeads(weights_.data(), 1, 1, tokens, tokens);
  }
  void Compute() const {
    if (!ComputeAttend(*problem_, outputs_, {}).ok()) std::abort();
  }

 private:
  AlignedBuffer<float> embeddings_, weight_, bias_, output_, weights_;
  std::optional<AttendProblem> problem_;
  AttendOutputs outputs_;
};

double TinyMicroseconds() {
  const Attend attend(5, 64);
  return 1e6 / Median(RateOf(
                   ThreadClock, [&] { attend.Compute(); }, 1));
}

// What norms and rotary embedding of 12 heads of 64 add to a named layer of 512 tokens, as a part of the whole.
class NamedLayer {
 public:
  explicit NamedLayer(bool norms_and_turns) {
    AttendProblem::Spec spec;
    spec.embeddings = {embeddings_.data(), 1, kTokens, kDim};
    LinearView linear{weight_.data(), nullptr, kDim, kDim};
    linear.packed = &packed_;
    spec.layer = LayerView{linear, linear, linear, linear, kDim / kHeadDim, kDim / kHeadDim};
    if (norms_and_turns) {
      spec.layer->query_norm = spec.layer->key_norm = {embeddings_.data(), nullptr, kHeadDim};
      spec.layer->rotary.frequencies = frequencies_;
    }
    problem_ = *AttendProblem::Create(spec);
  }
  void Compute() const {
    AttendOutputs outputs;
    outputs.output = output_.data();
    if (!ComputeAttend(*problem_, outputs, {}).ok()) std::abort();
  }

 private:
  static constexpr std::int64_t kTokens = 512, kDim = 768, kHeadDim = 64;
  AlignedBuffer<float> embeddings_ = Numbers(kTokens * kDim), weight_ = Numbers(kDim * kDim);
  AlignedBuffer<float> output_{kTokens * kDim};
  PackedLinear packed_{{weight_.data(), nullptr, kDim, kDim}, BestInstructionSet()};
  std::vector<double> frequencies_ = std::vector<double>(kHeadDim / 2, 0.01);
  std::optional<AttendProblem> problem_;
};

double NormAndRotaryShare() {
  const NamedLayer with(true), without(false);
  const Measurement slow = RateOf(
      ThreadClock, [&] { with.Compute(); }, 1);
  const Measurement fast = RateOf(
      ThreadClock, [&] { without.Compute(); }, 1);
  return 1 - MedianQuotient(slow, fast);
}

}  // namespace

void RegisterAttendCase() {
  Register("core/tiny/T5/D64/attend_us", [] { return Figure{TinyMicroseconds()}; });
  Register("core/layer/T512/D768/norm_and_rotary_share", [] { return Figure{NormAndRotaryShare()}; });
}

}  // namespace attend::bench
