// Attention over embeddings through the kernels: against the float64 reference, and the same bits however it is run.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/runtime/executor.h"
#include "gtest/gtest.h"
#include "tests/support/sdpa_case.h"

namespace attend {
namespace {

using testing::AllNear;
using testing::QuickRandom;
using testing::SameBits;

struct AttendSpec {
  std::int64_t batch = 1, queries = 5, keys = 5, embed = 64, context_embed = 64;
  std::int64_t heads = 1, kv_heads = 1, head_dim = 64, value_dim = 64, output_dim = 0;  // 0: no output projection.
  bool context = false, layer = true, biases = true;
  CausalMode causal = CausalMode::kNone;
};

// Owns everything an AttendProblem views.
struct AttendCase {
  explicit AttendCase(const AttendSpec& s) : spec(s) {
    embeddings = Random(s.batch * s.queries * s.embed, 1);
    if (s.context) context = Random(s.batch * s.keys * s.context_embed, 1);
    const std::int64_t memory_embed = s.context ? s.context_embed : s.embed;
    Linear(0, s.heads * s.head_dim, s.embed);
    Linear(1, s.kv_heads * s.head_dim, memory_embed);
    Linear(2, s.kv_heads * s.value_dim, memory_embed);
    if (s.output_dim > 0) Linear(3, s.output_dim, s.heads * s.value_dim);
  }
  AttendCase(const AttendCase&) = delete;
  AttendCase& operator=(const AttendCase&) = delete;

  AttendProblem Problem() const {
    AttendProblem::Spec problem;
    problem.embeddings = {embeddings.data(), spec.batch, spec.queries, spec.embed};
    if (spec.context) problem.context = {context.data(), spec.batch, spec.keys, spec.context_embed};
    if (spec.layer) problem.layer = LayerView{linear[0], linear[1], linear[2], linear[3], spec.heads, spec.kv_heads};
    problem.options.causal = spec.causal;
    absl::StatusOr<AttendProblem> created = AttendProblem::Create(problem);
    if (!created.ok()) ADD_FAILURE() << created.status().ToString();
    return *std::move(created);
  }

  AttendSpec spec;
  std::vector<float> embeddings, context, weights[4], biases[4];
  LinearView linear[4];

 private:
  std::vector<float> Random(std::int64_t size, float scale) {
    std::vector<float> numbers(static_cast<std::size_t>(size));
    random_.Fill(numbers, scale);
    return numbers;
  }
  void Linear(int i, std::int64_t out, std::int64_t in) {
    weights[i] = Random(out * in, 2 / std::sqrt(static_cast<float>(in)));
    if (spec.biases) biases[i] = Random(out, 0.5f);
    linear[i] = {weights[i].data(), spec.biases ? biases[i].data() : nullptr, out, in};
  }
  QuickRandom random_{7};
};

struct AttendResult {
  explicit AttendResult(const AttendProblem& p)
      : output(Size(p.batch(), p.query_length(), p.output_dim())),
        query(Size(p.batch() * p.num_heads(), p.query_length(), p.head_dim())),
        key(Size(p.batch() * p.num_kv_heads(), p.key_length(), p.head_dim())),
        value(Size(p.batch() * p.num_kv_heads(), p.key_length(), p.value_dim())),
        weights(Size(p.batch() * p.num_heads(), p.query_length(), p.key_length())),
        scores(weights.size()),
        averaged(Size(p.batch(), p.query_length(), p.key_length())),
        log_sum_exp(Size(p.batch(), p.num_heads(), p.query_length())) {
    const std::int64_t b = p.batch(), h = p.num_heads(), t = p.query_length(), s = p.key_length();
    outputs = {output.data(),
               query.data(),
               key.data(),
               value.data(),
               SplitHeads(weights.data(), b, h, t, s),
               SplitHeads(averaged.data(), b, 1, t, s),
               SplitHeads(scores.data(), b, h, t, s)};
    outputs.log_sum_exp = log_sum_exp.data();
  }
  AttendResult(const AttendResult&) = delete;
  AttendResult& operator=(const AttendResult&) = delete;

  std::vector<float> output, query, key, value, weights, scores, averaged, log_sum_exp;
  AttendOutputs outputs;

 private:
  static std::size_t Size(std::int64_t a, std::int64_t b, std::int64_t c) {
    return static_cast<std::size_t>(a * b * c);
  }
};

void Compute(const AttendProblem& problem, InstructionSet set, Executor* executor, AttendResult& result) {
  ComputeContext context;
  context.instruction_set = set;
  context.executor = executor;
  ASSERT_TRUE(ComputeAttend(problem, result.outputs, context).ok());
}

std::vector<AttendSpec> Specs() {
  AttendSpec tiny;
  AttendSpec plain = tiny;
  plain.layer = false;
  AttendSpec cross;
  cross.batch = 2;
  cross.queries = 7;
  cross.keys = 33;
  cross.embed = 48;
  cross.context_embed = 20;
  cross.context = true;
  cross.heads = 6;
  cross.kv_heads = 2;
  cross.head_dim = 8;
  cross.value_dim = 5;
  cross.output_dim = 50;
  AttendSpec large;
  large.batch = 2;
  large.queries = large.keys = 130;
  large.embed = 200;
  large.heads = large.kv_heads = 4;
  large.head_dim = large.value_dim = 50;
  large.output_dim = 200;
  large.biases = false;
  large.causal = CausalMode::kBottomRight;
  return {tiny, plain, cross, large};
}

TEST(KernelsAttend, AgreesWithTheReference) {
  for (const AttendSpec& spec : Specs()) {
    const AttendCase attend_case(spec);
    const AttendProblem problem = attend_case.Problem();
    const ReferenceResult expected = ReferenceAttend(problem);
    for (InstructionSet set : SupportedInstructionSets()) {
      SCOPED_TRACE(InstructionSetName(set));
      AttendResult actual(problem);
      Compute(problem, set, nullptr, actual);
      EXPECT_TRUE(AllNear(actual.query, expected.query, 3e-6));
      EXPECT_TRUE(AllNear(actual.key, expected.key, 3e-6));
      EXPECT_TRUE(AllNear(actual.value, expected.value, 3e-6));
      EXPECT_TRUE(AllNear(actual.output, expected.output, 5e-6));
      EXPECT_TRUE(AllNear(actual.weights, expected.attention_weights, 3e-6));
      EXPECT_TRUE(AllNear(actual.averaged, expected.averaged_weights, 3e-6));
      EXPECT_TRUE(AllNear(actual.scores, expected.scores, 1e-5));
      EXPECT_TRUE(AllNear(actual.log_sum_exp, expected.log_sum_exp, 1e-5));
    }
  }
}

TEST(KernelsAttend, SameBitsForAnyThreadsAndInstructionSet) {
  for (const AttendSpec& spec : Specs()) {
    const AttendCase attend_case(spec);
    const AttendProblem problem = attend_case.Problem();
    AttendResult first(problem);
    Compute(problem, BestInstructionSet(), nullptr, first);
    for (InstructionSet set : SupportedInstructionSets()) {
      if (IsBitReproducible(set) != IsBitReproducible(BestInstructionSet())) continue;
      for (int threads : {1, 2, 4}) {
        Executor executor({.num_threads = threads});
        AttendResult other(problem);
        Compute(problem, set, &executor, other);
        EXPECT_TRUE(SameBits(first.output, other.output));
        EXPECT_TRUE(SameBits(first.query, other.query));
        EXPECT_TRUE(SameBits(first.key, other.key));
        EXPECT_TRUE(SameBits(first.value, other.value));
        EXPECT_TRUE(SameBits(first.weights, other.weights));
        EXPECT_TRUE(SameBits(first.averaged, other.averaged));
        EXPECT_TRUE(SameBits(first.log_sum_exp, other.log_sum_exp));
      }
    }
  }
}

// A token's projection does not depend on how many others travel with it.
TEST(KernelsAttend, AnyBatchGivesTheBitsOfOne) {
  AttendSpec spec = Specs()[3];
  const AttendCase all(spec);
  AttendResult whole(all.Problem());
  Compute(all.Problem(), BestInstructionSet(), nullptr, whole);
  AttendProblem::Spec second;
  second.embeddings = {all.embeddings.data() + spec.queries * spec.embed, 1, spec.queries, spec.embed};
  second.layer = all.Problem().layer();
  second.options.causal = spec.causal;
  const absl::StatusOr<AttendProblem> problem = AttendProblem::Create(second);
  ASSERT_TRUE(problem.ok());
  AttendResult alone(*problem);
  Compute(*problem, BestInstructionSet(), nullptr, alone);
  EXPECT_EQ(0, std::memcmp(alone.output.data(), whole.output.data() + alone.output.size(),
                           alone.output.size() * sizeof(float)));
}

// Linear maps of every shape around the tiles, one output feature at a time against float64.
TEST(KernelsAttend, ProjectionsOfEveryShape) {
  for (std::int64_t tokens : {1, 2, 7, 8, 9, 47, 49}) {
    for (std::int64_t embed : {1, 15, 16, 17, 127, 128, 129, 300}) {
      AttendSpec spec;
      spec.queries = spec.keys = tokens;
      spec.embed = embed;
      spec.head_dim = 1 + embed % 23;
      spec.value_dim = 40 + tokens;
      const AttendCase attend_case(spec);
      const AttendProblem problem = attend_case.Problem();
      const ReferenceResult expected = ReferenceAttend(problem);
      for (InstructionSet set : SupportedInstructionSets()) {
        AttendResult actual(problem);
        Compute(problem, set, nullptr, actual);
        EXPECT_TRUE(AllNear(actual.query, expected.query, 2e-6)) << tokens << " " << embed;
        EXPECT_TRUE(AllNear(actual.key, expected.key, 2e-6)) << tokens << " " << embed;
        EXPECT_TRUE(AllNear(actual.value, expected.value, 2e-6)) << tokens << " " << embed;
      }
    }
  }
}

}  // namespace
}  // namespace attend
