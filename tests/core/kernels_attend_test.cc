// Attention over embeddings through the kernels: against the float64 reference, and the same bits however it is run.
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/runtime/executor.h"
#include "gtest/gtest.h"
#include "tests/support/attend_case.h"
#include "tests/support/sdpa_case.h"

namespace attend {
namespace {

using testing::AllNear;
using testing::AttendCase;
using testing::AttendResult;
using testing::AttendSpec;
using testing::SameBits;

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
