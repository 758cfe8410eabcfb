// Fuzzes scaled dot-product attention: whatever the bytes describe is either refused with the field to blame, or
// computed by every instruction set of this machine without touching foreign memory, to the accuracy that is promised,
// and with the same bits wherever there is fused multiply-add. The judge is the float64 reference.
//
// One command fuzzes for ten minutes with clang's libFuzzer (`make fuzz` does the same for every target):
//
//   cmake --preset fuzz && ninja -C build/fuzz sdpa_fuzz && scripts/fuzz.sh 600
//
// Every input worth keeping goes to tests/fuzz/corpus/sdpa, which `ctest -R sdpa_fuzz_replay` runs under every preset.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/attention/compute.h"
#include "core/attention/reference.h"
#include "core/base/error.h"
#include "tests/fuzz/sdpa_case.h"

namespace attend::testing {
namespace {

constexpr double kUnitRoundoff = 0x1p-24;
// Rows whose scores a float32 computation cannot resolve are not compared with the reference, only checked for sense;
// nor are rows whose query, scaled, leaves float32's range.
constexpr double kHopelessScoreError = 0.05;

// What a failure says first: the axes, the options in use and the instruction set.
void Describe(const SdpaProblem& problem, InstructionSet set) {
  const AttentionOptions& o = problem.options();
  std::fprintf(stderr, "%s B %ld H %ld K %ld T %ld S %ld E %ld V %ld scale %g causal %d",
               std::string(InstructionSetName(set)).c_str(), problem.batch(), problem.num_heads(),
               problem.num_kv_heads(), problem.query_length(), problem.key_length(), problem.head_dim(),
               problem.value_dim(), problem.scale(), static_cast<int>(o.causal));
  if (o.softcap) std::fprintf(stderr, " softcap %g", *o.softcap);
  if (o.sliding_window_left) std::fprintf(stderr, " left %ld", *o.sliding_window_left);
  if (o.sliding_window_right) std::fprintf(stderr, " right %ld", *o.sliding_window_right);
  std::fprintf(stderr, "%s%s%s%s%s\n", o.key_lengths.empty() ? "" : " lengths", o.mask ? " mask" : "",
               o.bias ? " bias" : "", o.alibi_slopes.empty() ? "" : " alibi", o.sinks.empty() ? "" : " sinks");
}

// What a check throws; caught where it is known what was being computed.
struct Failure {
  std::string message;
};

#define FUZZ_CHECK(condition, ...)                                                                                  \
  do {                                                                                                              \
    if (!(condition)) throw Failure{absl::StrFormat("%s:%d: ", __FILE__, __LINE__) + absl::StrFormat(__VA_ARGS__)}; \
  } while (false)

// Every output of one computation, each in a heap block of its own.
struct Results {
  std::vector<float> output, attention_weights, averaged_weights, scores, log_sum_exp;
};

std::vector<float> Buffer(std::int64_t size) { return std::vector<float>(static_cast<std::size_t>(size), 12345.0f); }

Results Compute(const SdpaProblem& problem, InstructionSet set) {
  const std::int64_t batch = problem.batch(), heads = problem.num_heads();
  const std::int64_t queries = problem.query_length(), keys = problem.key_length(), dim = problem.value_dim();
  Results r{Buffer(batch * heads * queries * dim), Buffer(batch * heads * queries * keys),
            Buffer(batch * queries * keys), Buffer(batch * heads * queries * keys), Buffer(batch * heads * queries)};
  const SdpaOutputs outputs{SplitHeads(r.output.data(), batch, heads, queries, dim),
                            SplitHeads(r.attention_weights.data(), batch, heads, queries, keys),
                            SplitHeads(r.averaged_weights.data(), batch, 1, queries, keys),
                            SplitHeads(r.scores.data(), batch, heads, queries, keys),
                            {},
                            r.log_sum_exp.data()};
  const absl::Status status = ComputeSdpa(problem, outputs, {.instruction_set = set});
  FUZZ_CHECK(status.ok(), "%s", status.ToString());
  return r;
}

bool SameBits(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

void CheckSameBits(const char* what, const std::vector<float>& a, const std::vector<float>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    FUZZ_CHECK(SameBits(a[i], b[i]), "%s: [%d] is %.9g and %.9g", what, i, a[i], b[i]);
  }
}

// The output alone takes other paths than all outputs together; its bits must not show it.
void CheckOutputAlone(const SdpaProblem& problem, InstructionSet set, const std::vector<float>& expected) {
  std::vector<float> output = Buffer(static_cast<std::int64_t>(expected.size()));
  const SdpaOutputs outputs{.output = SplitHeads(output.data(), problem.batch(), problem.num_heads(),
                                                 problem.query_length(), problem.value_dim())};
  FUZZ_CHECK(ComputeSdpa(problem, outputs, {.instruction_set = set}).ok(), "output alone");
  CheckSameBits("output alone and with other outputs", output, expected);
}

// A non-finite expectation asks for a non-finite result (which of them depends on what underflows), except for
// -infinity, which is how a masked score looks.
void CheckNear(const char* what, std::size_t i, float actual, double expected, double tolerance) {
  const bool same = actual == expected || (!std::isfinite(expected) && expected != -INFINITY && !std::isfinite(actual));
  FUZZ_CHECK(same || std::abs(actual - expected) <= tolerance, "%s[%zu] is %.9g, expected %.17g within %.3g", what, i,
             actual, expected, tolerance);
}

// The rows of a problem: [B, H, T].
struct RowIndex {
  std::int64_t b, h, t;
};

// Whether scaling the query neither overflows nor underflows in float32: 0 * infinity is NaN, which the exact product
// might not be.
bool ScalesWithinFloat(const SdpaProblem& problem, const float* query) {
  const double factor = std::abs(problem.scale()) / std::min(problem.options().softcap.value_or(1.0f), 1.0f);
  if (factor > 1e37) return false;
  for (std::int64_t d = 0; d < problem.head_dim(); ++d) {
    const double scaled = std::abs(query[d]) * factor;
    if (scaled != 0 && std::isfinite(query[d]) && !(scaled > 1e-37 && scaled < 1e37)) return false;
  }
  return true;
}

// The standard bound of the error of a row's scores in float32: a dot product of E terms, and a few roundings of each
// of the terms that are added to it.
double ScoreError(const SdpaProblem& problem, const RowIndex& row) {
  const AttentionOptions& options = problem.options();
  const float* query = problem.query().As<const float>().Row(row.b, row.h, row.t);
  const KeyRange range = problem.VisibleKeys(row.b, row.t);
  double worst = 0;
  if (!ScalesWithinFloat(problem, query)) return kHopelessScoreError;
  for (std::int64_t j = range.begin; j < range.end; ++j) {
    const float* key = problem.key().As<const float>().Row(row.b, row.h / problem.group_size(), j);
    double magnitude = 0, added = 0;
    for (std::int64_t d = 0; d < problem.head_dim(); ++d) magnitude += std::abs(double{query[d]} * key[d]);
    const HeadsView bias = options.bias.As<const float>();
    if (bias) added += std::abs(bias.Row(row.b, row.h, row.t)[j * bias.dim_stride]);
    if (!options.alibi_slopes.empty()) {
      const auto distance = static_cast<double>(std::abs(row.t + problem.PositionOffset(row.b) - j));
      added += std::abs(options.alibi_slopes[static_cast<std::size_t>(row.h)] * distance);
    }
    magnitude *= std::abs(problem.scale());
    if (options.softcap) added += std::min(magnitude, double{*options.softcap});
    if (!std::isfinite(magnitude)) magnitude = 0;  // A score that is not finite stays so, or becomes the cap exactly.
    const double terms = static_cast<double>(problem.head_dim()) + 8;
    const double error = kUnitRoundoff * (terms * magnitude + 8 * added);
    if (std::isfinite(error)) worst = std::max(worst, error);
  }
  return worst;
}

double MaxFiniteValue(const SdpaProblem& problem) {
  double max = 0;
  const HeadsView value = problem.value().As<const float>();
  for (std::int64_t i = 0; i < value.batch * value.heads * value.length * value.dim; ++i) {  // Dense in both layouts.
    if (std::isfinite(value.data[i])) max = std::max(max, double{std::abs(value.data[i])});
  }
  return max;
}

bool IsMasked(const SdpaProblem& problem, const RowIndex& row, std::size_t key) {
  const auto j = static_cast<std::int64_t>(key);
  const KeyRange range = problem.VisibleKeys(row.b, row.t);
  const MaskView& mask = problem.options().mask;
  return j < range.begin || j >= range.end || (mask && mask.Row(row.b, row.h, row.t)[j * mask.dim_stride] == 0);
}

void CheckRow(const SdpaProblem& problem, const Results& actual, const ReferenceResult& expected, const RowIndex& row,
              double max_value) {
  const double error = ScoreError(problem, row);
  const bool hopeless = error >= kHopelessScoreError;
  const auto r = static_cast<std::size_t>((row.b * problem.num_heads() + row.h) * problem.query_length() + row.t);
  const auto keys = static_cast<std::size_t>(problem.key_length()), dim = static_cast<std::size_t>(problem.value_dim());
  for (std::size_t j = r * keys; j < (r + 1) * keys; ++j) {
    if (IsMasked(problem, row, j - r * keys) || (expected.scores[j] == -INFINITY && !hopeless)) {
      FUZZ_CHECK(actual.attention_weights[j] == 0, "weight[%zu] of a masked key is %g", j, actual.attention_weights[j]);
      FUZZ_CHECK(actual.scores[j] == -INFINITY, "score[%zu] of a masked key is %g", j, actual.scores[j]);
    } else if (!hopeless) {
      CheckNear("scores", j, actual.scores[j], expected.scores[j],
                2 * error + 1e-6 + 8 * kUnitRoundoff * std::abs(expected.scores[j]));
      CheckNear("attention_weights", j, actual.attention_weights[j], expected.attention_weights[j], 3e-6 + 4 * error);
    }
  }
  const double log_sum_exp = expected.log_sum_exp[r];
  if (hopeless) return;
  CheckNear("log_sum_exp", r, actual.log_sum_exp[r], log_sum_exp,
            1e-5 + 2 * error + 8 * kUnitRoundoff * std::abs(log_sum_exp));
  for (std::size_t v = r * dim; v < (r + 1) * dim; ++v) {
    CheckNear("output", v, actual.output[v], expected.output[v], max_value * (2e-6 + 4 * error) + 1e-6);
  }
}

void CheckAgainstReference(const SdpaProblem& problem, const Results& actual, const ReferenceResult& expected) {
  const double max_value = MaxFiniteValue(problem);
  for (std::int64_t b = 0; b < problem.batch(); ++b) {
    for (std::int64_t h = 0; h < problem.num_heads(); ++h) {
      for (std::int64_t t = 0; t < problem.query_length(); ++t) {
        CheckRow(problem, actual, expected, {b, h, t}, max_value);
      }
    }
  }
}

Results CheckOne(const SdpaProblem& problem, InstructionSet set, const ReferenceResult& expected) {
  Results actual = Compute(problem, set);
  CheckAgainstReference(problem, actual, expected);
  CheckOutputAlone(problem, set, actual.output);
  return actual;
}

void CheckSameBits(const Results& a, const Results& b) {
  CheckSameBits("output of two instruction sets", a.output, b.output);
  CheckSameBits("attention_weights of two instruction sets", a.attention_weights, b.attention_weights);
  CheckSameBits("averaged_weights of two instruction sets", a.averaged_weights, b.averaged_weights);
  CheckSameBits("scores of two instruction sets", a.scores, b.scores);
  CheckSameBits("log_sum_exp of two instruction sets", a.log_sum_exp, b.log_sum_exp);
}

void CheckProblem(const SdpaProblem& problem) {
  const ReferenceResult expected = ReferenceSdpa(problem);
  std::optional<Results> reproducible;
  for (const InstructionSet set : SupportedInstructionSets()) {
    try {
      Results actual = CheckOne(problem, set, expected);
      if (!IsBitReproducible(set)) continue;
      if (reproducible) CheckSameBits(*reproducible, actual);
      if (!reproducible) reproducible = std::move(actual);
    } catch (const Failure& failure) {
      Describe(problem, set);
      std::fprintf(stderr, "%s\n", failure.message.c_str());
      std::abort();
    }
  }
}

}  // namespace
}  // namespace attend::testing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const attend::testing::SdpaCase input(data, size);
  const absl::StatusOr<attend::SdpaProblem> problem = attend::SdpaProblem::Create(input.spec());
  if (problem.ok()) {
    attend::testing::CheckProblem(*problem);
  } else if (attend::GetErrorDetails(problem.status()).field.empty()) {
    std::fprintf(stderr, "blames no field: %s\n", problem.status().ToString().c_str());
    std::abort();
  }
  return 0;
}
