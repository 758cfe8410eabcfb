// NaN and infinity beside finite inputs whose arithmetic leaves float32's range: what is not finite in a result is so
// for a reason that the inputs give, which is what float64 says.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/edge_of_range.h"
#include "tests/support/typed_tensor.h"

namespace attend {
namespace {

using testing::EdgeOfRange;
using testing::kEdgesOfRange;
using testing::SameBits;
using testing::SdpaCase;
using testing::SdpaCaseSpec;
using testing::SdpaResult;
using testing::TypedTensor;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

// One number of a tensor becomes another; what an option holds is changed only where the option is given.
struct Poison {
  const char* name;
  void (*apply)(SdpaCase&);
};
void Put(std::vector<float>& numbers, std::size_t at, float number) {
  if (at < numbers.size()) numbers[at] = number;
}
constexpr Poison kPoisons[] = {
    {"nan query", [](SdpaCase& c) { Put(c.query, 3, kNan); }},
    {"infinite query", [](SdpaCase& c) { Put(c.query, 2, kInf); }},
    {"nan key", [](SdpaCase& c) { Put(c.key, c.key.size() - 2, kNan); }},
    {"infinite key", [](SdpaCase& c) { Put(c.key, c.key.size() - 3, kInf); }},
    {"first key infinite", [](SdpaCase& c) { Put(c.key, 4, -kInf); }},
    {"every key infinite",
     [](SdpaCase& c) {
       for (std::size_t i = 3; i < c.key.size(); i += static_cast<std::size_t>(c.spec.head_dim)) c.key[i] = -kInf;
     }},
    {"nan value", [](SdpaCase& c) { Put(c.value, c.value.size() - 1, kNan); }},
    {"infinite value", [](SdpaCase& c) { Put(c.value, 1, -kInf); }},
    {"nan bias", [](SdpaCase& c) { Put(c.bias, 1, kNan); }},
    {"infinite bias", [](SdpaCase& c) { Put(c.bias, 2, kInf); }},
    {"infinite slope", [](SdpaCase& c) { Put(c.alibi, 0, kInf); }},
    {"nan sink", [](SdpaCase& c) { Put(c.sinks, 0, kNan); }},
    {"infinite sink", [](SdpaCase& c) { Put(c.sinks, 0, kInf); }},
};

// `expected` rounded to float32. Where it is not finite before that it asks for a result that is not; which of them
// depends on what underflows.
bool IsNear(float actual, double expected, double relative, double absolute) {
  const double rounded = static_cast<float>(expected);
  if (actual == rounded) return true;
  if (!std::isfinite(expected)) return !std::isfinite(actual);
  return std::isfinite(rounded) && std::abs(actual - rounded) <= relative * std::abs(rounded) + absolute;
}

::testing::AssertionResult Near(const char* what, const std::vector<float>& actual, const std::vector<double>& expected,
                                double relative, double absolute) {
  if (actual.size() != expected.size()) return ::testing::AssertionFailure() << what << ": " << actual.size();
  for (std::size_t i = 0; i < actual.size(); ++i) {
    // -infinity is how a masked key looks, and a row without keys.
    const bool masked = expected[i] == -double{kInf};
    if (masked ? actual[i] == -kInf : IsNear(actual[i], expected[i], relative, absolute)) continue;
    return ::testing::AssertionFailure() << what << "[" << i << "] is " << actual[i] << ", expected " << expected[i];
  }
  return ::testing::AssertionSuccess();
}

// What the output is without keys that weigh nothing: float32 takes one whose bias it cannot hold for masked, so that
// its value, which makes NaN of a weight of 0 if it is not finite, does not matter.
std::vector<double> OutputOfWeights(const SdpaCase& c, const ReferenceResult& expected) {
  const auto keys = static_cast<std::size_t>(c.spec.keys), dim = static_cast<std::size_t>(c.spec.value_dim);
  std::vector<double> output(expected.output.size());
  for (std::size_t i = 0; i < expected.attention_weights.size(); ++i) {
    const std::size_t row = i / keys, key = i % keys;
    if (expected.attention_weights[i] == 0) continue;
    for (std::size_t v = 0; v < dim; ++v) {
      output[row * dim + v] += expected.attention_weights[i] * double{c.value[key * dim + v]};
    }
  }
  return output;
}

::testing::AssertionResult OutputIsNear(const SdpaCase& c, const std::vector<float>& actual,
                                        const ReferenceResult& expected, double absolute) {
  const std::vector<double> of_weights = OutputOfWeights(c, expected);
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double e = std::isnan(expected.output[i]) ? of_weights[i] : expected.output[i];
    if (IsNear(actual[i], expected.output[i], 0, absolute) || IsNear(actual[i], e, 0, absolute)) continue;
    return ::testing::AssertionFailure() << "output[" << i << "] is " << actual[i] << ", expected " << e;
  }
  return ::testing::AssertionSuccess();
}

// A masked key weighs 0, whatever its row holds.
::testing::AssertionResult WeightsAreNear(const std::vector<float>& actual, const ReferenceResult& expected) {
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double weight = expected.scores[i] == -double{kInf} ? 0 : expected.attention_weights[i];
    if (IsNear(actual[i], weight, 0, 2e-6)) continue;
    return ::testing::AssertionFailure() << "weights[" << i << "] is " << actual[i] << ", expected " << weight;
  }
  return ::testing::AssertionSuccess();
}

double LargestFinite(const std::vector<float>& numbers) {
  double largest = 0;
  for (const float x : numbers) {
    if (std::isfinite(x)) largest = std::max(largest, std::abs(double{x}));
  }
  return largest;
}

// The sign and payload of a NaN are the processor's own (docs/numerics.md).
std::vector<float> WithOneNan(std::vector<float> numbers) {
  for (float& x : numbers) {
    if (std::isnan(x)) x = std::numeric_limits<float>::quiet_NaN();
  }
  return numbers;
}

void ExpectWhatFloat64Gives(const SdpaCase& c) {
  const SdpaProblem problem = c.Problem();
  const ReferenceResult expected = ReferenceSdpa(problem);
  for (const InstructionSet set : SupportedInstructionSets()) {
    SCOPED_TRACE(InstructionSetName(set));
    SdpaResult actual(problem);
    ASSERT_TRUE(ComputeSdpa(problem, actual.Outputs(), {.instruction_set = set}).ok());
    EXPECT_TRUE(OutputIsNear(c, actual.output, expected, 4e-6 * LargestFinite(c.value) + 1e-6));
    EXPECT_TRUE(WeightsAreNear(actual.weights, expected));
    EXPECT_TRUE(Near("scores", actual.scores, expected.scores, 5e-7, 1e-5));
    EXPECT_TRUE(Near("log_sum_exp", actual.log_sum_exp, expected.log_sum_exp, 3e-7, 1e-5));
    SdpaResult alone(problem, testing::Ask::kOutput);
    ASSERT_TRUE(ComputeSdpa(problem, alone.Outputs(), {.instruction_set = set}).ok());
    EXPECT_TRUE(SameBits(WithOneNan(alone.output), WithOneNan(actual.output))) << "the output alone";
  }
}

// Few rows go one way through the kernels, many another.
std::vector<SdpaCaseSpec> Shapes() {
  std::vector<SdpaCaseSpec> shapes(3);
  shapes[0].queries = 3, shapes[0].keys = 6, shapes[0].heads = 2;
  shapes[1].queries = 2, shapes[1].keys = 90, shapes[1].key_mask = true;
  shapes[2].queries = 40, shapes[2].keys = 70, shapes[2].head_dim = 5, shapes[2].value_dim = 17;
  return shapes;
}

class NotFiniteBeside : public ::testing::TestWithParam<EdgeOfRange> {};

TEST_P(NotFiniteBeside, GivesWhatFloat64Gives) {
  for (SdpaCaseSpec spec : Shapes()) {
    for (const bool more : {false, true}) {
      if (more) spec.sinks = spec.alibi = spec.bias = true;
      SdpaCaseSpec prepared = spec;
      GetParam().prepare(prepared);
      for (const Poison& poison : kPoisons) {
        SCOPED_TRACE(::testing::PrintToString(prepared) + ", " + poison.name);
        SdpaCase c(prepared);
        GetParam().apply(c);
        poison.apply(c);
        ExpectWhatFloat64Gives(c);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, NotFiniteBeside, ::testing::ValuesIn(kEdgesOfRange), [](const auto& edge) {
  std::string name = edge.param.name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

// FLOAT16 makes infinities of large numbers. The sink and the slope are of FLOAT32 and keep theirs.
TEST(NotFinite, InFloat16BesideALargeSinkOrSlope) {
  SdpaCaseSpec spec;
  spec.queries = 30, spec.keys = 60, spec.heads = 2;
  spec.key_mask = spec.alibi = spec.sinks = true;
  const std::vector<std::int64_t> query_ends = {0, 3, 30}, key_ends = {0, 20, 60};
  for (const bool ragged : {false, true}) {
    for (const char* const large : {"sink", "slope"}) {
      SdpaCase c(spec);
      (large == std::string("sink") ? c.sinks : c.alibi)[1] = -3e38f;
      (large == std::string("sink") ? c.sinks : c.alibi)[0] = 3e38f;
      for (std::size_t i = 3; i < c.key.size(); i += 7 * 8) c.key[i] = -1e5f;
      if (ragged) c.options.cumulative_query_lengths = query_ends, c.options.cumulative_key_lengths = key_ends;
      const auto narrow = [](const std::vector<float>& numbers) {
        return TypedTensor::From(std::vector<double>(numbers.begin(), numbers.end()), DataType::kFloat16);
      };
      const TypedTensor q = narrow(c.query), k = narrow(c.key), v = narrow(c.value);
      const SdpaProblem problem =
          *SdpaProblem::Create({q.View(1, 2, 30, 8), k.View(1, 1, 60, 8), v.View(1, 1, 60, 8), c.options});
      const ReferenceResult expected = ReferenceSdpa(problem);
      for (const InstructionSet set : SupportedInstructionSets()) {
        SCOPED_TRACE(std::string(InstructionSetName(set)) + large + (ragged ? " ragged" : ""));
        const std::int64_t columns = problem.score_columns();
        SdpaResult actual(problem);
        actual.weights.resize(expected.attention_weights.size());
        SdpaOutputs to = {.attention_weights = SplitHeads(actual.weights.data(), 1, 2, 30, columns),
                          .log_sum_exp = actual.log_sum_exp.data()};
        ASSERT_TRUE(ComputeSdpa(problem, to, {.instruction_set = set}).ok());
        EXPECT_TRUE(WeightsAreNear(actual.weights, expected));
        EXPECT_TRUE(Near("log_sum_exp", actual.log_sum_exp, expected.log_sum_exp, 3e-7, 1e-5));
      }
    }
  }
}

}  // namespace
}  // namespace attend
