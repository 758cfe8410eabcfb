// The bounds on scratch memory that the server refuses requests by, against the address space that computing takes; and
// what stays of it.

#include <gtest/gtest.h>
#include <malloc.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <limits>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/config.h"
#include "core/compute/compute_sdpa.h"
#include "core/compute/workspace.h"
#include "core/kernels/kernel_table.h"
#include "core/layer/attend_problem.h"
#include "core/layer/compute_attend.h"
#include "core/problem/sdpa_problem.h"
#include "core/tensor/aligned_buffer.h"

namespace attend {
namespace {

// Large enough that the blocks that matter come straight from the system and show in VmPeak.
constexpr std::int64_t kWide = std::int64_t{1} << 20;
// What the process may take besides: small blocks, the C library's own.
constexpr double kSlack = 4 << 20;

double PeakBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmPeak:", 0) == 0) return std::stod(line.substr(7)) * 1024;
  }
  return 0;
}

TEST(ScratchBytes, CoversWhatWideHeadsTake) {
  const std::vector<float> query(kWide, 0.001f), key(2 * kWide, 0.001f), value(2 * kWide, 1.0f);
  std::vector<float> output(kWide);
  const SdpaProblem problem = *SdpaProblem::Create({.query = SplitHeads(query.data(), 1, 1, 1, kWide),
                                                    .key = SplitHeads(key.data(), 1, 1, 2, kWide),
                                                    .value = SplitHeads(value.data(), 1, 1, 2, kWide)});
  const double before = PeakBytes();
  ASSERT_TRUE(ComputeSdpa(problem, {.output = SplitHeads(output.data(), 1, 1, 1, kWide)}, {}).ok());
  const double taken = PeakBytes() - before;
  EXPECT_GT(taken, 4.0 * kWide) << "nothing was measured";
  EXPECT_LE(taken, ScratchBytes(problem, 1, false) + kSlack);
}

TEST(ScratchBytes, CoversWhatWideEmbeddingsTake) {
  const std::vector<float> embeddings(kWide, 0.001f), weight(kWide, 0.001f);
  std::vector<float> output(1);
  const LinearView linear = {.weight = weight.data(), .bias = nullptr, .out_features = 1, .in_features = kWide};
  const AttendProblem problem =
      *AttendProblem::Create({.embeddings = {.data = embeddings.data(), .batch = 1, .length = 1, .dim = kWide},
                              .layer = LayerView{.query = linear, .key = linear, .value = linear}});
  const double before = PeakBytes();
  ASSERT_TRUE(ComputeAttend(problem, {.output = output.data()}, {}).ok());
  const double taken = PeakBytes() - before;
  EXPECT_GT(taken, 4.0 * kWide) << "nothing was measured";
  EXPECT_LE(taken, ScratchBytes(problem, 1, false) + kSlack);
}

TEST(ScratchBytes, AWorkspaceThatGrowsHoldsItsOldMemoryNoLonger) {
#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)
  GTEST_SKIP() << "sanitizers keep freed memory";
#endif
  // Both larger than freed blocks that are kept.
  constexpr std::int64_t kFirst = std::int64_t{20} << 20, kSecond = std::int64_t{24} << 20;
  const auto grow = [] {
    Workspace workspace;
    const double before = PeakBytes();
    const bool grown = workspace.Floats(kFirst) != nullptr && workspace.Floats(kSecond) != nullptr;
    const double taken = PeakBytes() - before;
    std::cerr << "took " << taken << " bytes\n";
    std::exit(grown && taken > 3.9 * kSecond && taken <= 4.0 * kSecond + kSlack ? 0 : 1);
  };
  EXPECT_EXIT(grow(), ::testing::ExitedWithCode(0), "");
}

TEST(ScratchBytes, GrowsWithThreadsAndWithConsumedWeights) {
  const std::vector<float> x(64 * 64);
  const HeadsView view = SplitHeads(x.data(), 1, 1, 64, 64);
  const SdpaProblem problem = *SdpaProblem::Create({.query = view, .key = view, .value = view});
  EXPECT_EQ(ScratchBytes(problem, 3, false), 3 * ScratchBytes(problem, 1, false));
  EXPECT_EQ(ScratchBytes(problem, 1, true) - ScratchBytes(problem, 1, false), 2 * 4.0 * 48 * 64);
}

TEST(ScratchBytes, CountsTheTopWeightsOfARow) {
  const std::vector<float> x(64 * 64);
  const HeadsView view = SplitHeads(x.data(), 1, 1, 64, 64);
  const SdpaProblem problem = *SdpaProblem::Create({.query = view, .key = view, .value = view});
  EXPECT_EQ(ScratchBytes(problem, 2, true, 10) - ScratchBytes(problem, 2, true), 2 * 8.0 * 10);
  EXPECT_EQ(ScratchBytes(problem, 2, true, 1000) - ScratchBytes(problem, 2, true), 2 * 8.0 * 64) << "no more than keys";
}

TEST(ScratchBytes, CountsHeadsThatNoMachineHolds) {
  // What EstimateCost asks about: shapes without contents. 64 rows of this value have 2^63 elements.
  constexpr std::int64_t kHuge = std::int64_t{1} << 57;
  const float x = 0;
  const HeadsView small = SplitHeads(&x, 1, 1, 1, 1);
  for (const std::int64_t value_dim : {kHuge - 1, kHuge}) {
    for (const DataType type : {DataType::kFloat32, DataType::kBFloat16}) {
      TypedHeadsView value = SplitHeads(&x, 1, 1, 1, value_dim);
      value.type = type;
      const SdpaProblem problem = *SdpaProblem::Create({.query = small, .key = small, .value = value});
      EXPECT_GT(ScratchBytes(problem, 1, false), 4.0 * kHuge) << value_dim;
    }
  }
}

TEST(ScratchBytes, CoversTheStatesOfManyHeadsAndChunks) {
  // 64 heads of 16 queries each over many keys, tokens first: the states of all chunks are kept.
  constexpr std::int64_t kHeads = 64, kGroup = 16, kKeys = 262144;
  const std::vector<float> query(kHeads * kGroup, 0.001f), key(kHeads * kKeys, 0.001f);
  std::vector<float> output(kHeads * kGroup);
  const auto merged = [](const float* data, std::int64_t heads, std::int64_t tokens) {
    return HeadsView{.data = data,
                     .batch = 1,
                     .heads = heads,
                     .length = tokens,
                     .dim = 1,
                     .batch_stride = heads * tokens,
                     .head_stride = 1,
                     .row_stride = heads,
                     .dim_stride = 1};
  };
  const SdpaProblem problem = *SdpaProblem::Create({.query = merged(query.data(), kHeads * kGroup, 1),
                                                    .key = merged(key.data(), kHeads, kKeys),
                                                    .value = merged(key.data(), kHeads, kKeys)});
  // In a process of its own, whose peak is not that of the tests before.
  const auto compute = [&] {
    const double before = PeakBytes();
    const bool computed =
        ComputeSdpa(problem, {.output = SplitHeads(output.data(), 1, kHeads * kGroup, 1, 1)}, {}).ok();
    const double taken = PeakBytes() - before, foreseen = ScratchBytes(problem, 1, false);
    const bool is_measured = taken > 4.0 * kHeads * kGroup * kKeys / kKeyChunk;
    std::cerr << "took " << taken << " bytes, foreseen were " << foreseen << "\n";
    std::exit(computed && is_measured && taken <= foreseen + kSlack ? 0 : 1);
  };
  EXPECT_EXIT(compute(), ::testing::ExitedWithCode(0), "");
}

TEST(ScratchBytes, CoversOneRowThatIsLookedAtAgainBesideItsScores) {
#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)
  GTEST_SKIP() << "sanitizers keep freed memory";
#endif
  // A key that is not finite and a bias: the row is computed again, and then its scores are completed.
  constexpr std::int64_t kKeys = std::int64_t{1} << 22;
  const float query = 1, bias = 0;
  std::vector<float> key(kKeys, 0.0f), scores(kKeys);
  const std::vector<float> value(kKeys, 0.0f);
  key[0] = -std::numeric_limits<float>::infinity();
  float output = 1;
  const SdpaProblem problem = *SdpaProblem::Create({.query = SplitHeads(&query, 1, 1, 1, 1),
                                                    .key = SplitHeads<const float>(key.data(), 1, 1, kKeys, 1),
                                                    .value = SplitHeads(value.data(), 1, 1, kKeys, 1),
                                                    .options = {.bias = SplitHeads(&bias, 1, 1, 1, 1)}});
  const auto compute = [&] {
    const SdpaOutputs outputs = {.output = SplitHeads(&output, 1, 1, 1, 1),
                                 .scores = SplitHeads(scores.data(), 1, 1, 1, kKeys)};
    const double before = PeakBytes();
    const bool computed = ComputeSdpa(problem, outputs, {}).ok();
    const double taken = PeakBytes() - before, foreseen = ScratchBytes(problem, 1, false);
    const bool is_measured = taken > 8.0 * kKeys;
    std::cerr << "took " << taken << " bytes, foreseen were " << foreseen << "\n";
    std::exit(computed && output == 0 && is_measured && taken <= foreseen + kSlack ? 0 : 1);
  };
  EXPECT_EXIT(compute(), ::testing::ExitedWithCode(0), "");
}

TEST(ScratchBytes, CoversTheHeadsOfASequenceThatTakeTurns) {
  // Tokens first, so that heads take turns: 8 heads of 8 rows in the first sequence, and more rows with the second than
  // the kernels for few rows take. Rows are so long that each head's memory comes straight from the system, and
  // therefore lie over each other; the window spares computing most of them.
  constexpr std::int64_t kHeads = 8, kQueries = 17, kKeys = 1026, kDim = std::int64_t{1} << 18;
  const std::vector<float> x(kDim + kKeys, 0.001f);
  std::vector<float> output(kHeads * kQueries);
  const std::vector<std::int64_t> queries = {0, 8, kQueries}, keys = {0, kKeys - 1, kKeys};
  const auto rows = [&x](std::int64_t length, std::int64_t dim) {
    return HeadsView{.data = x.data(),
                     .batch = 1,
                     .heads = kHeads,
                     .length = length,
                     .dim = dim,
                     .batch_stride = 0,
                     .head_stride = 0,
                     .row_stride = 1,
                     .dim_stride = 1};
  };
  const SdpaProblem problem = *SdpaProblem::Create(
      {.query = rows(kQueries, kDim),
       .key = rows(kKeys, kDim),
       .value = rows(kKeys, 1),
       .options = {.sliding_window_left = 0, .cumulative_query_lengths = queries, .cumulative_key_lengths = keys}});
  const auto compute = [&] {
    const double before = PeakBytes();
    const bool computed = ComputeSdpa(problem, {.output = SplitHeads(output.data(), 1, kHeads, kQueries, 1)}, {}).ok();
    const double taken = PeakBytes() - before, foreseen = ScratchBytes(problem, 1, false);
    const bool is_measured = taken > 4.0 * kHeads * 8 * kDim;
    std::cerr << "took " << taken << " bytes, foreseen were " << foreseen << "\n";
    std::exit(computed && is_measured && taken <= foreseen + kSlack ? 0 : 1);
  };
  EXPECT_EXIT(compute(), ::testing::ExitedWithCode(0), "");
}

TEST(ScratchBytes, CountsTheShortChunksOfSequencesSideBySide) {
  // The third sequence has most of the work, so two threads then compute the others side by side: four chunks, two of
  // one key, where the 2051 keys of all would be three.
  constexpr std::int64_t kHeads = 64, kQueries = 128, kKeys = kKeyChunk + 1, kMany = std::int64_t{1} << 20, kDim = 1024;
  const float x = 0;
  const std::vector<std::int64_t> queries = {0, kQueries, 2 * kQueries, 2 * kQueries + kMany};
  const std::vector<std::int64_t> keys = {0, kKeys, 2 * kKeys, 2 * kKeys + 1};
  const SdpaProblem problem =
      *SdpaProblem::Create({.query = SplitHeads(&x, 1, kHeads, queries.back(), 1),
                            .key = SplitHeads(&x, 1, kHeads, keys.back(), 1),
                            .value = SplitHeads(&x, 1, kHeads, keys.back(), kDim),
                            .options = {.cumulative_query_lengths = queries, .cumulative_key_lengths = keys}});
  constexpr double kFourChunks = 4 * 4.0 * kHeads * kQueries * kDim;
  EXPECT_GE(ScratchBytes(problem, 2, false), kFourChunks);
  EXPECT_LT(ScratchBytes(problem, 1, false), kFourChunks) << "one after the other";
}

TEST(ScratchBytes, ManySequencesTakeNothingBesideTheirLists) {
  constexpr std::size_t kSequences = std::size_t{1} << 23;  // A number for each would come straight from the system.
  const std::vector<float> x(1, 1.0F);
  std::vector<float> output(1);
  std::vector<std::int64_t> ends(kSequences + 1, 0);
  ends.back() = 1;  // All others are empty.
  const HeadsView view = SplitHeads(x.data(), 1, 1, 1, 1);
  const SdpaProblem problem =
      *SdpaProblem::Create({.query = view,
                            .key = view,
                            .value = view,
                            .options = {.cumulative_query_lengths = ends, .cumulative_key_lengths = ends}});
  const auto compute = [&] {
    const double before = PeakBytes();
    const bool computed = ComputeSdpa(problem, {.output = SplitHeads(output.data(), 1, 1, 1, 1)}, {}).ok();
    const double taken = PeakBytes() - before, foreseen = ScratchBytes(problem, 1, false);
    std::cerr << "took " << taken << " bytes, foreseen were " << foreseen << "\n";
    std::exit(computed && output[0] == 1 && taken <= foreseen + kSlack ? 0 : 1);
  };
  EXPECT_EXIT(compute(), ::testing::ExitedWithCode(0), "");
}

TEST(ScratchBytes, CountsTheKeysAndValuesThatANarrowContextIsWidenedTo) {
  const std::vector<float> x(64 * 64);
  const auto bytes = [&x](DataType context_type) {
    const EmbeddingsView context = {.data = x.data(), .batch = 1, .length = 64, .dim = 64, .type = context_type};
    return ScratchBytes(*AttendProblem::Create({.embeddings = {.data = x.data(), .batch = 1, .length = 64, .dim = 64},
                                                .context = context}),
                        1, false);
  };
  EXPECT_GE(bytes(DataType::kBFloat16) - bytes(DataType::kFloat32), 2 * 4.0 * 64 * 64);
}

// Of malloc's memory, what is in use.
std::size_t UsedBytes() {
  const auto info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

TEST(ScratchBytes, AThreadKeepsThoseOfASmallProblemAlone) {
  if (kIsSanitized) GTEST_SKIP() << "nothing is kept from sanitizers";
  const auto compute = [](std::int64_t dim) {
    const std::vector<float> x(static_cast<std::size_t>(5 * dim), 0.001f);
    std::vector<float> output(x.size());
    const HeadsView view = SplitHeads(x.data(), 1, 1, 5, dim);
    const SdpaProblem problem = *SdpaProblem::Create({.query = view, .key = view, .value = view});
    EXPECT_TRUE(ComputeSdpa(problem, {.output = SplitHeads(output.data(), 1, 1, 5, dim)}, {}).ok());
  };
  compute(64);  // What the process keeps from its first on.
  // A thread that has kept nothing before.
  std::thread([&compute] {
    constexpr std::size_t kLeast = std::size_t{16} << 10, kMost = std::size_t{64} << 10;
    const std::size_t before = UsedBytes();
    compute(64);
    EXPECT_GT(UsedBytes(), before + kLeast);
    EXPECT_LT(UsedBytes(), before + kMost);
    compute(std::int64_t{1} << 16);
    EXPECT_LT(UsedBytes(), before + kMost) << "of a large one";
  }).join();
}

}  // namespace
}  // namespace attend
