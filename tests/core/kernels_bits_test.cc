// The same request gives the same bits: for any number of threads, batch, position in it, split of the queries, set of
// outputs asked for, and instruction set with fused multiply-add. Compared with memcmp.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/runtime/executor.h"
#include "gtest/gtest.h"
#include "tests/support/sdpa_case.h"

namespace attend {
namespace {

using testing::Ask;
using testing::SameBits;
using testing::SdpaCase;
using testing::SdpaCaseSpec;
using testing::SdpaResult;

std::vector<InstructionSet> ReproducibleSets() {
  std::vector<InstructionSet> sets;
  for (InstructionSet set : SupportedInstructionSets()) {
    if (IsBitReproducible(set)) sets.push_back(set);
  }
  return sets;
}

SdpaResult Compute(const SdpaProblem& problem, InstructionSet set, Executor* executor = nullptr,
                   Ask ask = Ask::kEverything) {
  SdpaResult result(problem, ask);
  ComputeContext context;
  context.instruction_set = set;
  context.executor = executor;
  EXPECT_TRUE(ComputeSdpa(problem, result.Outputs(), context).ok());
  return result;
}

// A long problem with few rows (split by chunks of keys), one with many, and one with every option.
std::vector<SdpaCaseSpec> Specs() {
  SdpaCaseSpec few;
  few.queries = 3;
  few.keys = 3300;
  few.heads = 2;
  few.kv_heads = 1;
  few.head_dim = 64;
  few.value_dim = 40;
  few.magnitude = 4;  // The maximum moves often.
  SdpaCaseSpec many = few;
  many.queries = 60;
  many.keys = 1200;
  many.head_dim = 20;
  many.causal = CausalMode::kBottomRight;
  SdpaCaseSpec rich = many;
  rich.batch = 2;
  rich.heads = 6;
  rich.kv_heads = 2;
  rich.queries = 61;
  rich.keys = 1200;
  rich.window_left = 700;
  rich.softcap = 5.0f;
  rich.mask = rich.bias = rich.alibi = rich.sinks = true;
  rich.valid_lengths = {1111, 1200};
  return {few, many, rich};
}

TEST(KernelsBits, AnyNumberOfThreads) {
  for (const SdpaCaseSpec& spec : Specs()) {
    const SdpaCase sdpa_case(spec);
    const SdpaProblem problem = sdpa_case.Problem();
    for (InstructionSet set : ReproducibleSets()) {
      for (Ask ask : {Ask::kOutput, Ask::kPerHead, Ask::kEverything}) {
        const SdpaResult alone = Compute(problem, set, nullptr, ask);
        for (int threads : {1, 2, 3, 4}) {
          Executor executor({.num_threads = threads});
          EXPECT_TRUE(SameBits(alone, Compute(problem, set, &executor, ask)))
              << threads << " threads, " << InstructionSetName(set) << ", " << ::testing::PrintToString(spec);
        }
      }
    }
  }
}

TEST(KernelsBits, AnyInstructionSetWithFusedMultiplyAdd) {
  for (const SdpaCaseSpec& spec : Specs()) {
    const SdpaCase sdpa_case(spec);
    const SdpaProblem problem = sdpa_case.Problem();
    const std::vector<InstructionSet> sets = ReproducibleSets();
    for (std::size_t i = 1; i < sets.size(); ++i) {
      EXPECT_TRUE(SameBits(Compute(problem, sets[0]), Compute(problem, sets[i]))) << ::testing::PrintToString(spec);
    }
  }
}

// FNV-1a over the bits of everything computed.
std::uint64_t Fingerprint(const SdpaResult& result) {
  std::uint64_t hash = 14695981039346656037u;
  for (const std::vector<float>* part :
       {&result.output, &result.log_sum_exp, &result.weights, &result.scores, &result.averaged}) {
    for (float x : *part) {
      std::uint32_t bits;
      std::memcpy(&bits, &x, sizeof(bits));
      hash = (hash ^ bits) * 1099511628211u;
    }
  }
  return hash;
}

// The bits themselves, so that a machine cannot differ from another, nor a release from the one before, unnoticed.
// Whoever changes the arithmetic on purpose changes these numbers, and says so in the change log.
TEST(KernelsBits, BitsAreThoseOfEveryOtherMachine) {
  const std::uint64_t expected[] = {12391640056387216336u, 7664894874725795735u, 12782377641273795724u};
  const std::vector<SdpaCaseSpec> specs = Specs();
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const SdpaCase sdpa_case(specs[i]);
    const SdpaProblem problem = sdpa_case.Problem();
    for (InstructionSet set : ReproducibleSets()) {
      EXPECT_EQ(Fingerprint(Compute(problem, set)), expected[i]) << InstructionSetName(set) << ", problem " << i;
    }
  }
}

TEST(KernelsBits, AskingForWeightsDoesNotChangeTheOutput) {
  for (const SdpaCaseSpec& spec : Specs()) {
    const SdpaCase sdpa_case(spec);
    const SdpaProblem problem = sdpa_case.Problem();
    for (InstructionSet set : SupportedInstructionSets()) {
      const SdpaResult everything = Compute(problem, set);
      const SdpaResult per_head = Compute(problem, set, nullptr, Ask::kPerHead);
      const SdpaResult output = Compute(problem, set, nullptr, Ask::kOutput);
      EXPECT_TRUE(SameBits(everything.output, output.output));
      EXPECT_TRUE(SameBits(everything.log_sum_exp, output.log_sum_exp));
      EXPECT_TRUE(SameBits(per_head.output, output.output));
      EXPECT_TRUE(SameBits(per_head.weights, everything.weights));
      EXPECT_TRUE(SameBits(per_head.scores, everything.scores));
    }
  }
}

TEST(KernelsBits, AnyBatchAndPositionInIt) {
  SdpaCaseSpec spec;
  spec.batch = 3;
  spec.heads = 2;
  spec.kv_heads = 2;
  spec.queries = 70;
  spec.keys = 1100;
  spec.head_dim = 16;
  const SdpaCase sdpa_case(spec);
  for (InstructionSet set : SupportedInstructionSets()) {
    const SdpaResult whole = Compute(sdpa_case.Problem(), set, nullptr, Ask::kOutput);
    for (std::int64_t b = 0; b < spec.batch; ++b) {
      HeadsView views[] = {sdpa_case.query_view, sdpa_case.key_view, sdpa_case.value_view};
      for (HeadsView& view : views) view.data = view.Row(b, 0, 0), view.batch = 1;
      const absl::StatusOr<SdpaProblem> one = SdpaProblem::Create({views[0], views[1], views[2], {}});
      ASSERT_TRUE(one.ok());
      const SdpaResult alone = Compute(*one, set, nullptr, Ask::kOutput);
      EXPECT_EQ(
          0, std::memcmp(alone.output.data(), whole.output.data() + b * static_cast<std::int64_t>(alone.output.size()),
                         alone.output.size() * sizeof(float)))
          << "batch entry " << b << ", " << InstructionSetName(set);
    }
  }
}

// The queries of a causal problem in pieces of `piece`, each seeing the keys up to its own last position: prefill in
// chunks, and decoding one by one.
void ExpectPiecesEqualWhole(SdpaCaseSpec spec, std::int64_t piece, InstructionSet set) {
  spec.causal = CausalMode::kBottomRight;
  const SdpaCase sdpa_case(spec);
  const SdpaResult whole = Compute(sdpa_case.Problem(), set, nullptr, Ask::kOutput);
  const std::int64_t dim = spec.value_dim;
  for (std::int64_t first = 0; first < spec.queries; first += piece) {
    const std::int64_t count = std::min(piece, spec.queries - first);
    HeadsView query = sdpa_case.query_view, key = sdpa_case.key_view, value = sdpa_case.value_view;
    query.data = query.Row(0, 0, first);
    query.length = count;
    key.length = value.length = spec.keys - spec.queries + first + count;
    const absl::StatusOr<SdpaProblem> part = SdpaProblem::Create({query, key, value, sdpa_case.options});
    ASSERT_TRUE(part.ok());
    const SdpaResult actual = Compute(*part, set, nullptr, Ask::kOutput);
    for (std::int64_t h = 0; h < spec.heads; ++h) {
      EXPECT_EQ(
          0, std::memcmp(actual.output.data() + h * count * dim, whole.output.data() + (h * spec.queries + first) * dim,
                         static_cast<std::size_t>(count * dim) * sizeof(float)))
          << "queries " << first << " to " << first + count << ", head " << h << ", " << InstructionSetName(set);
    }
  }
}

TEST(KernelsBits, ChunkedPrefillAndDecodeEqualWholePrefill) {
  SdpaCaseSpec spec;
  spec.heads = 4;
  spec.kv_heads = 2;
  spec.queries = 130;
  spec.keys = 1150;
  spec.head_dim = 24;
  spec.value_dim = 12;
  spec.magnitude = 3;
  for (InstructionSet set : ReproducibleSets()) {
    for (std::int64_t piece : {1, 4, 13, 64}) ExpectPiecesEqualWhole(spec, piece, set);
  }
}

TEST(KernelsBits, DecodeEqualsPrefillWithWindowSoftcapAlibiAndSinks) {
  SdpaCaseSpec spec;
  spec.heads = 2;
  spec.kv_heads = 1;
  spec.queries = 40;
  spec.keys = 1100;
  spec.head_dim = 130;
  spec.value_dim = 33;
  spec.window_left = 90;
  spec.softcap = 4.0f;
  spec.alibi = spec.sinks = true;
  for (InstructionSet set : SupportedInstructionSets()) ExpectPiecesEqualWhole(spec, 1, set);
}

// With one row and more keys and values than caches hold, keys are taken in another loop. The same query among two goes
// through the usual one.
TEST(KernelsBits, OneRowOverKeysThatCachesDoNotHold) {
  SdpaCaseSpec spec;
  spec.heads = spec.kv_heads = 2;
  spec.queries = 2;
  spec.keys = 16500;
  spec.head_dim = spec.value_dim = 64;
  const SdpaCase sdpa_case(spec);
  HeadsView last = sdpa_case.query_view;
  last.data = last.Row(0, 0, 1);
  last.length = 1;
  const absl::StatusOr<SdpaProblem> one = SdpaProblem::Create({last, sdpa_case.key_view, sdpa_case.value_view, {}});
  ASSERT_TRUE(one.ok());
  for (InstructionSet set : SupportedInstructionSets()) {
    const SdpaResult two = Compute(sdpa_case.Problem(), set, nullptr, Ask::kOutput);
    const SdpaResult alone = Compute(*one, set, nullptr, Ask::kOutput);
    for (std::int64_t h = 0; h < 2; ++h) {
      EXPECT_EQ(0, std::memcmp(alone.output.data() + h * 64, two.output.data() + (2 * h + 1) * 64, 64 * sizeof(float)))
          << "head " << h << ", " << InstructionSetName(set);
    }
  }
}

// Keys that nobody sees may as well not be there.
TEST(KernelsBits, MaskedKeysEqualAbsentKeys) {
  for (std::int64_t queries : {2, 30}) {
    SdpaCaseSpec spec;
    spec.queries = queries;
    spec.keys = 2000;
    spec.valid_lengths = {1500};
    const SdpaCase padded(spec);
    spec.keys = 1500;
    spec.valid_lengths.clear();
    for (InstructionSet set : SupportedInstructionSets()) {
      HeadsView key = padded.key_view, value = padded.value_view;
      key.length = value.length = 1500;
      const absl::StatusOr<SdpaProblem> shorter = SdpaProblem::Create({padded.query_view, key, value, {}});
      ASSERT_TRUE(shorter.ok());
      EXPECT_TRUE(SameBits(Compute(padded.Problem(), set, nullptr, Ask::kOutput),
                           Compute(*shorter, set, nullptr, Ask::kOutput)));
    }
  }
}

}  // namespace
}  // namespace attend
