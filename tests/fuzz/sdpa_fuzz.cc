// Fuzzes scaled dot-product attention: whatever the bytes describe is either refused with the field to blame, or
// computed by every instruction set of this machine without touching foreign memory, to the accuracy that is promised,
// and with the same bits wherever there is fused multiply-add. The judge is the float64 reference; tensors of 16 bits
// are widened first, which must give the same bits (but for PRECISION_FAST, which has a bound), and sequences of a
// ragged batch are computed alone, which must too.
//
// One command fuzzes for ten minutes with clang's libFuzzer (`make fuzz` does the same for every target):
//
//   cmake --preset fuzz && ninja -C build/fuzz sdpa_fuzz && scripts/fuzz.sh 600
//
// Every input worth keeping goes to tests/fuzz/corpus/sdpa, which `ctest -R sdpa_fuzz_replay` runs under every preset.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/compute/context.h"
#include "core/problem/sequences.h"
#include "core/reference/reference.h"
#include "tests/fuzz/sdpa_accuracy.h"
#include "tests/fuzz/sdpa_case.h"
#include "tests/fuzz/sdpa_results.h"
#include "tests/support/typed_tensor.h"

namespace attend::testing {
namespace {

// What a failure says first: the axes, the options in use and the instruction set.
void Describe(const SdpaProblem& problem, InstructionSet set) {
  const AttentionOptions& o = problem.options();
  std::fprintf(stderr, "%s B %ld H %ld K %ld T %ld S %ld E %ld V %ld scale %g causal %d",
               std::string(InstructionSetName(set)).c_str(), problem.batch(), problem.num_heads(),
               problem.num_kv_heads(), problem.query_length(), problem.key_length(), problem.head_dim(),
               problem.value_dim(), problem.scale(), static_cast<int>(o.causal.value_or(CausalMode::kNone)));
  if (o.softcap) std::fprintf(stderr, " softcap %g", *o.softcap);
  if (o.sliding_window_left) std::fprintf(stderr, " left %ld", *o.sliding_window_left);
  if (o.sliding_window_right) std::fprintf(stderr, " right %ld", *o.sliding_window_right);
  for (const TypedHeadsView* view : {&problem.query(), &problem.key(), &problem.value()}) {
    std::fprintf(stderr, " %s", std::string(DataTypeName(view->type)).c_str());
  }
  std::fprintf(stderr, "%s%s%s%s%s%s%s\n", IsRagged(o) ? " ragged" : "", o.valid_lengths.empty() ? "" : " lengths",
               o.mask ? " mask" : "", o.key_mask ? " key mask" : "", o.bias ? " bias" : "",
               o.alibi_slopes.empty() ? "" : " alibi", o.sinks.empty() ? "" : " sinks");
}

// Numbers [heads, rows, width] of one sequence, where they stand in those of the whole [heads, all rows, all columns].
void CheckRows(const char* what, const std::vector<double>& whole, const std::vector<double>& one, std::int64_t width,
               std::int64_t rows, std::int64_t first, std::int64_t all_rows, std::int64_t columns, double beyond) {
  const std::int64_t heads = static_cast<std::int64_t>(one.size()) / (rows * width);
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t t = 0; t < rows; ++t) {
      const double* row = &whole[static_cast<std::size_t>((h * all_rows + first + t) * columns)];
      CheckSameBits(what, row, &one[static_cast<std::size_t>((h * rows + t) * width)], static_cast<std::size_t>(width));
      for (std::int64_t j = width; j < columns; ++j)
        FUZZ_CHECK(row[j] == beyond, "%s beyond the keys: %g", what, row[j]);
    }
  }
}

// The reference takes a ragged batch apart in its own way; what it finds must be what the sequence by itself gives.
void CheckOutputsOfReference(const SdpaProblem& problem, const ReferenceResult& whole, const ReferenceResult& one,
                             std::int64_t first, std::int64_t rows) {
  const std::int64_t dim = problem.value_dim();
  for (std::int64_t h = 0; h < problem.num_heads(); ++h) {
    for (std::int64_t i = 0; i < rows * dim; ++i) {
      const double a = whole.output[static_cast<std::size_t>((h * problem.query_length() + first) * dim + i)];
      const double b = one.output[static_cast<std::size_t>(h * rows * dim + i)];
      const bool same = a == b || (std::isnan(a) && std::isnan(b)) || std::abs(a - b) <= 1e-9 * std::abs(b) + 1e-30;
      FUZZ_CHECK(same, "the reference of a sequence: %g in the batch and %g alone", a, b);
    }
  }
}

// What a problem is judged by, made once for all instruction sets.
struct Judge {
  struct Alone {
    Sequence where;
    SdpaProblem problem;
    ReferenceResult expected;
  };

  explicit Judge(const SdpaProblem& p) : problem(p), expected(ReferenceSdpa(p)) {
    for (std::int64_t n = 0; IsRagged(p.options()) && n < NumSequences(p.options()); ++n) {
      const Sequence where = GetSequence(p.options(), n);
      if (where.num_queries() == 0) continue;
      const SdpaProblem alone = p.SequenceAlone(n);
      sequences.push_back({where, alone, ReferenceSdpa(alone)});
      CheckOutputsOfReference(p, expected, sequences.back().expected, where.queries.begin, where.num_queries());
    }
  }

  SdpaProblem problem;
  ReferenceResult expected;
  std::vector<Alone> sequences;  // Of a ragged batch; those with queries.
};

void CheckSequence(const Judge& judge, const Judge::Alone& alone, const Results& whole, InstructionSet set,
                   const TopChoice& top) {
  const std::int64_t all_rows = judge.problem.query_length(), columns = judge.problem.score_columns();
  const std::int64_t rows = alone.where.num_queries(), first = alone.where.queries.begin;
  const std::int64_t keys = alone.problem.key_length(), dim = alone.problem.value_dim();
  const Results one = Compute(alone.problem, set, top);
  CheckAgainstReference(alone.problem, one, alone.expected);
  CheckRows("output of a sequence", whole.output, one.output, dim, rows, first, all_rows, dim, 0);
  CheckRows("weights", whole.attention_weights, one.attention_weights, keys, rows, first, all_rows, columns, 0);
  CheckRows("averaged weights", whole.averaged_weights, one.averaged_weights, keys, rows, first, all_rows, columns, 0);
  CheckRows("scores", whole.scores, one.scores, keys, rows, first, all_rows, columns, -INFINITY);
  CheckRows("log-sum-exp", whole.log_sum_exp, one.log_sum_exp, 1, rows, first, all_rows, 1, 0);
  if (top.k > 0) CheckRows("top", whole.top_weights, one.top_weights, top.k, rows, first, all_rows, top.k, 0);
}

// Numbers of 16 bits give what the same numbers give in FLOAT32, and the output is that rounded once.
Results CheckWidened(const SdpaProblem& wide, const Results& narrow, InstructionSet set, const TopChoice& top,
                     DataType type) {
  Results widened = Compute(wide, set, top);
  Results rounded = widened;
  rounded.output = TypedTensor::From(std::vector<float>(widened.output.begin(), widened.output.end()), type).Doubles();
  CheckSameBits("of 16-bit tensors and the same in FLOAT32", narrow, rounded);
  return widened;
}

bool IsNarrow(const SdpaProblem& problem) {
  return ElementSize(problem.query().type) == 2 || ElementSize(problem.key().type) == 2 ||
         ElementSize(problem.value().type) == 2;
}

// `judge` is of the problem in FLOAT32 where that has 16 bits.
Results CheckOne(const SdpaProblem& problem, const Judge& judge, InstructionSet set, const TopChoice& top) {
  Results actual = Compute(problem, set, top);
  CheckOutputAlone(problem, set, actual.output);
  CheckTop(problem, actual, top);
  const Results results =
      IsNarrow(problem) ? CheckWidened(judge.problem, actual, set, top, problem.query().type) : actual;
  for (const Judge::Alone& alone : judge.sequences) CheckSequence(judge, alone, results, set, top);
  if (!IsRagged(problem.options())) CheckAgainstReference(judge.problem, results, judge.expected);
  return actual;
}

// Fast kernels take subnormal numbers as 0, in sums too, and scale whole scores: what only shows where a score has
// factors near both ends of float32's range.
bool IsOfModerateSize(const SdpaProblem& wide) {
  const auto moderate = [](double x) {
    return x == 0 || !std::isfinite(x) || (std::abs(x) > 1e-18 && std::abs(x) < 1e18);
  };
  for (const TypedHeadsView* view : {&wide.query(), &wide.key(), &wide.value()}) {
    const auto* numbers = view->As<const float>().data;
    if (!std::all_of(numbers, numbers + view->batch * view->heads * view->length * view->dim, moderate)) return false;
  }
  return moderate(wide.scale()) && moderate(wide.options().softcap.value_or(1));
}

// PRECISION_FAST, where there are kernels for it: the output rounded to BFLOAT16 is within 2^-7 of the largest value,
// all else as exact as ever.
void CheckFast(const SdpaCase& input, const Judge& judge, InstructionSet set, FastKernels available,
               const TopChoice& top) {
  SdpaProblem::Spec spec = input.spec();
  spec.options.precision = Precision::kFast;
  const absl::StatusOr<SdpaProblem> problem = SdpaProblem::Create(spec);
  FUZZ_CHECK(problem.ok(), "%s", problem.status().ToString());
  if (FastKernelsOf(*problem, available) == FastKernels::kNone) return;
  const Results actual = Compute(*problem, set, top, available);
  CheckOutputAlone(*problem, set, actual.output, available);
  CheckTop(*problem, actual, top);
  if (IsRagged(problem->options()) || !IsOfModerateSize(judge.problem)) return;
  CheckAgainstReference(judge.problem, actual, judge.expected, 0x1p-7);
}

void CheckProblem(const SdpaCase& input, const SdpaProblem& problem) {
  InstructionSet set = BestInstructionSet();
  try {
    const Judge judge(IsNarrow(problem) ? *SdpaProblem::Create(input.wide_spec()) : problem);
    std::optional<Results> reproducible;
    for (const InstructionSet supported : SupportedInstructionSets()) {
      set = supported;
      Results actual = CheckOne(problem, judge, set, {input.top_k(), input.top_per_head()});
      for (const FastKernels fast : SupportedFastKernels(set)) {
        CheckFast(input, judge, set, fast, {input.top_k(), input.top_per_head()});
      }
      if (!IsBitReproducible(set)) continue;
      if (reproducible) CheckSameBits("of two instruction sets", *reproducible, actual);
      if (!reproducible) reproducible = std::move(actual);
    }
  } catch (const Failure& failure) {
    Describe(problem, set);
    std::fprintf(stderr, "%s\n", failure.message.c_str());
    std::abort();
  }
}

}  // namespace
}  // namespace attend::testing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const attend::testing::SdpaCase input(data, size);
  const absl::StatusOr<attend::SdpaProblem> problem = attend::SdpaProblem::Create(input.spec());
  if (problem.ok()) {
    attend::testing::CheckProblem(input, *problem);
  } else if (attend::GetErrorDetails(problem.status()).field.empty()) {
    std::fprintf(stderr, "blames no field: %s\n", problem.status().ToString().c_str());
    std::abort();
  }
  return 0;
}
