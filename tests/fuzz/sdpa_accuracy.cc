#include "tests/fuzz/sdpa_accuracy.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace attend::testing {
namespace {

// Rows whose scores a float32 computation cannot resolve are not compared with the reference, only checked for sense.
constexpr double kHopelessScoreError = 0.05;
constexpr double kUnitRoundoff = 0x1p-24;

double UnitRoundoff(const SdpaProblem& problem) { return problem.is_double() ? 0x1p-53 : kUnitRoundoff; }

// Calls visit(numbers of a row), FLOAT32 or FLOAT64.
template <typename Visit>
auto VisitRow(const TypedHeadsView& view, std::int64_t b, std::int64_t h, std::int64_t t, const Visit& visit) {
  return view.type == DataType::kFloat64 ? visit(view.As<const double>().Row(b, h, t))
                                         : visit(view.As<const float>().Row(b, h, t));
}

// A non-finite expectation asks for a non-finite result (which of them depends on what underflows), except for
// -infinity, which is how a masked score looks.
void CheckNear(const char* what, std::size_t i, double actual, double expected, double tolerance) {
  const bool same = actual == expected || (!std::isfinite(expected) && expected != -INFINITY && !std::isfinite(actual));
  FUZZ_CHECK(same || std::abs(actual - expected) <= tolerance, "%s[%zu] is %.9g, expected %.17g within %.3g", what, i,
             actual, expected, tolerance);
}

// The rows of a problem: [B, H, T].
struct RowIndex {
  std::int64_t b, h, t;
};

template <typename T>
bool AllFinite(const T* numbers, std::int64_t size) {
  return std::all_of(numbers, numbers + size, [](T x) { return std::isfinite(x); });
}

// Whether a mask hides key j from the row.
bool IsHidden(const AttentionOptions& options, const RowIndex& row, std::int64_t j) {
  const MaskView &mask = options.mask, &keys = options.key_mask;
  return (mask && mask.Row(row.b, row.h, row.t)[j * mask.dim_stride] == 0) ||
         (keys && keys.Row(row.b, 0, 0)[j * keys.dim_stride] == 0);
}

// What a row sees: whether there is a key, and whether everything that it sees is finite. A bias of -infinity masks.
struct Inputs {
  bool has_keys = false;
  bool finite = true;
};
Inputs InputsOf(const SdpaProblem& problem, const RowIndex& row) {
  const AttentionOptions& options = problem.options();
  const auto finite = [](const TypedHeadsView& view, std::int64_t b, std::int64_t h, std::int64_t t) {
    return VisitRow(view, b, h, t, [&](const auto* numbers) { return AllFinite(numbers, view.dim); });
  };
  const KeyRange range = problem.VisibleKeys(row.b, row.t);
  Inputs inputs;
  inputs.finite = finite(problem.query(), row.b, row.h, row.t) &&
                  (options.alibi_slopes.empty() || std::isfinite(options.alibi_slopes[row.h])) &&
                  (options.sinks.empty() || std::isfinite(options.sinks[row.h]));
  for (std::int64_t j = range.begin; j < range.end; ++j) {
    if (IsHidden(options, row, j)) continue;
    const HeadsView bias = options.bias.As<const float>();
    const float added = bias ? bias.Row(row.b, row.h, row.t)[j * bias.dim_stride] : 0;
    const std::int64_t kv = row.h / problem.group_size();
    inputs.finite = inputs.finite && finite(problem.key(), row.b, kv, j) && finite(problem.value(), row.b, kv, j) &&
                    (std::isfinite(added) || added == -INFINITY);
    inputs.has_keys = inputs.has_keys || added != -INFINITY;
  }
  return inputs;
}

// The sum of |query[d] * key[d]|.
double SumOfMagnitudes(const SdpaProblem& problem, const RowIndex& row, std::int64_t key) {
  return VisitRow(problem.query(), row.b, row.h, row.t, [&](const auto* q) {
    return VisitRow(problem.key(), row.b, row.h / problem.group_size(), key, [&](const auto* k) {
      double sum = 0;
      for (std::int64_t d = 0; d < problem.head_dim(); ++d) sum += std::abs(double{q[d]} * double{k[d]});
      return sum;
    });
  });
}

// The standard bound of the error of a row's scores in float32: a dot product of E terms, and a few roundings of each
// of the terms that are added to it.
double ScoreError(const SdpaProblem& problem, const RowIndex& row) {
  const AttentionOptions& options = problem.options();
  const KeyRange range = problem.VisibleKeys(row.b, row.t);
  double worst = 0;
  for (std::int64_t j = range.begin; j < range.end; ++j) {
    double magnitude = SumOfMagnitudes(problem, row, j), added = 0;
    const HeadsView bias = options.bias.As<const float>();
    if (bias) added += std::abs(bias.Row(row.b, row.h, row.t)[j * bias.dim_stride]);
    if (!options.alibi_slopes.empty()) {
      const auto distance = static_cast<double>(std::abs(row.t + problem.PositionOffset(row.b) - j));
      added += std::abs(options.alibi_slopes[row.h] * distance);
    }
    magnitude *= std::abs(problem.scale());
    if (options.softcap) added += std::min(magnitude, *options.softcap);
    if (!std::isfinite(magnitude)) magnitude = 0;  // A score that is not finite stays so, or becomes the cap exactly.
    const double terms = static_cast<double>(problem.head_dim()) + 8;
    const double error = UnitRoundoff(problem) * (terms * magnitude + 8 * added);
    if (std::isfinite(error)) worst = std::max(worst, error);
  }
  return worst;
}

double MaxFiniteValue(const SdpaProblem& problem) {
  double max = 0;
  const TypedHeadsView& value = problem.value();
  for (std::int64_t row = 0; row < value.batch * value.heads * value.length; ++row) {
    const std::int64_t b = row / (value.heads * value.length), h = row / value.length % value.heads;
    VisitRow(value, b, h, row % value.length, [&](const auto* numbers) {
      for (std::int64_t d = 0; d < value.dim; ++d) {
        if (std::isfinite(numbers[d])) max = std::max(max, std::abs(double{numbers[d]}));
      }
    });
  }
  return max;
}

bool IsMasked(const SdpaProblem& problem, const RowIndex& row, std::size_t key) {
  const auto j = static_cast<std::int64_t>(key);
  const KeyRange range = problem.VisibleKeys(row.b, row.t);
  return j < range.begin || j >= range.end || IsHidden(problem.options(), row, j);
}

// Finite inputs give a mean of values, however large the scores are.
void CheckSense(const SdpaProblem& problem, const Results& actual, const RowIndex& row, double max_value,
                bool has_keys) {
  const auto r = static_cast<std::size_t>((row.b * problem.num_heads() + row.h) * problem.query_length() + row.t);
  const auto keys = static_cast<std::size_t>(problem.key_length()), dim = static_cast<std::size_t>(problem.value_dim());
  double sum = 0;
  for (std::size_t j = r * keys; j < (r + 1) * keys; ++j) {
    FUZZ_CHECK(actual.attention_weights[j] >= 0, "weight[%zu] is %g", j, actual.attention_weights[j]);
    sum += actual.attention_weights[j];
  }
  const bool whole = has_keys && problem.options().sinks.empty();
  FUZZ_CHECK(sum <= 1 + 1e-4 && (!whole || sum >= 1 - 1e-4), "the weights of row %zu add up to %g", r, sum);
  FUZZ_CHECK(!std::isnan(actual.log_sum_exp[r]), "the log-sum-exp of row %zu is NaN", r);
  for (std::size_t v = r * dim; v < (r + 1) * dim; ++v) {
    FUZZ_CHECK(std::abs(actual.output[v]) <= max_value * (1 + 1e-5), "output[%zu] is %g of values up to %g", v,
               actual.output[v], max_value);
  }
}

void CheckRow(const SdpaProblem& problem, const Results& actual, const ReferenceResult& expected, const RowIndex& row,
              double max_value, double allowance) {
  const Inputs inputs = InputsOf(problem, row);
  if (inputs.finite) CheckSense(problem, actual, row, max_value, inputs.has_keys);
  const double error = ScoreError(problem, row);
  const bool hopeless = error >= kHopelessScoreError;
  const double small = problem.is_double() ? 1e-12 : 1e-6;
  const auto r = static_cast<std::size_t>((row.b * problem.num_heads() + row.h) * problem.query_length() + row.t);
  const auto keys = static_cast<std::size_t>(problem.key_length()), dim = static_cast<std::size_t>(problem.value_dim());
  for (std::size_t j = r * keys; j < (r + 1) * keys; ++j) {
    if (IsMasked(problem, row, j - r * keys) || (expected.scores[j] == -INFINITY && !hopeless)) {
      FUZZ_CHECK(actual.attention_weights[j] == 0, "weight[%zu] of a masked key is %g", j, actual.attention_weights[j]);
      FUZZ_CHECK(actual.scores[j] == -INFINITY, "score[%zu] of a masked key is %g", j, actual.scores[j]);
    } else if (!hopeless) {
      CheckNear("scores", j, actual.scores[j], expected.scores[j],
                2 * error + small + 8 * UnitRoundoff(problem) * std::abs(expected.scores[j]));
      CheckNear("attention_weights", j, actual.attention_weights[j], expected.attention_weights[j],
                3 * small + 4 * error);
    }
  }
  const double log_sum_exp = expected.log_sum_exp[r];
  if (hopeless) return;
  CheckNear("log_sum_exp", r, actual.log_sum_exp[r], log_sum_exp,
            1e-5 + 2 * error + 8 * kUnitRoundoff * std::abs(log_sum_exp));
  for (std::size_t v = r * dim; v < (r + 1) * dim; ++v) {
    // An infinite value whose weight underflows gives NaN.
    if (!std::isfinite(expected.output[v]) && !std::isfinite(actual.output[v])) continue;
    CheckNear("output", v, actual.output[v], expected.output[v],
              max_value * (2 * small + 4 * error + allowance) + small);
  }
}

}  // namespace

void CheckAgainstReference(const SdpaProblem& problem, const Results& actual, const ReferenceResult& expected,
                           double allowance) {
  const double max_value = MaxFiniteValue(problem);
  for (std::int64_t b = 0; b < problem.batch(); ++b) {
    for (std::int64_t h = 0; h < problem.num_heads(); ++h) {
      for (std::int64_t t = 0; t < problem.query_length(); ++t) {
        CheckRow(problem, actual, expected, {b, h, t}, max_value, allowance);
      }
    }
  }
}

}  // namespace attend::testing
