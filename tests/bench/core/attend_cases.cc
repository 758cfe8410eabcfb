// Attention over embeddings as the notebook does it: three projections whose weights come along, output and weights.
#include <cstdlib>
#include <optional>

#include "core/attention/compute.h"
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

}  // namespace

void RegisterAttendCase() {
  Register("core/tiny/T5/D64/attend_us", [] { return Figure{TinyMicroseconds()}; });
}

}  // namespace attend::bench
