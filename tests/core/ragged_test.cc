// Ragged batches: each sequence gives what it gives alone, to the bit, and what is not its own is not looked at.

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "absl/strings/match.h"
#include "core/runtime/executor.h"
#include "tests/support/sdpa_case.h"

namespace attend {
namespace {

using testing::AllNear;
using testing::QuickRandom;

constexpr std::int64_t kHeads = 4, kKvHeads = 2, kHeadDim = 19, kValueDim = 16, kTop = 3;

std::vector<std::int64_t> Offsets(const std::vector<std::int64_t>& lengths) {
  std::vector<std::int64_t> offsets = {0};
  for (std::int64_t length : lengths) offsets.push_back(offsets.back() + length);
  return offsets;
}

// Results of a problem [1, kHeads, queries, columns], filled with what must be overwritten.
struct Results {
  Results(std::int64_t queries, std::int64_t columns)
      : output(Size(kHeads * queries * kValueDim)),
        weights(Size(kHeads * queries * columns)),
        scores(weights),
        averaged(Size(queries * columns)),
        log_sum_exp(Size(kHeads * queries)),
        top(Size(kHeads * queries * kTop)),
        indices(top.size(), -7) {
    outputs.output = SplitHeads(output.data(), 1, kHeads, queries, kValueDim);
    outputs.attention_weights = SplitHeads(weights.data(), 1, kHeads, queries, columns);
    outputs.scores = SplitHeads(scores.data(), 1, kHeads, queries, columns);
    outputs.averaged_weights = SplitHeads(averaged.data(), 1, 1, queries, columns);
    outputs.top_weights = {SplitHeads(top.data(), 1, kHeads, queries, kTop),
                           SplitHeads(indices.data(), 1, kHeads, queries, kTop)};
    outputs.log_sum_exp = log_sum_exp.data();
  }
  Results(const Results&) = delete;
  static std::vector<float> Size(std::int64_t size) {
    return std::vector<float>(static_cast<std::size_t>(size), 99.0f);
  }

  std::vector<float> output, weights, scores, averaged, log_sum_exp, top;
  std::vector<std::int32_t> indices;
  SdpaOutputs outputs;
};

struct RaggedCase {
  RaggedCase(std::vector<std::int64_t> query_lengths, std::vector<std::int64_t> key_lengths, unsigned choice)
      : query_offsets(Offsets(query_lengths)), key_offsets(Offsets(key_lengths)) {
    QuickRandom random(choice + 1);
    const auto numbers = [&](std::int64_t size, float magnitude) {
      std::vector<float> x(static_cast<std::size_t>(size));
      random.Fill(x, magnitude);
      return x;
    };
    const std::int64_t queries = query_offsets.back(), keys = key_offsets.back();
    for (std::int64_t length : key_lengths) columns = std::max(columns, length);
    query = numbers(kHeads * queries * kHeadDim, 1.7f);
    key = numbers(kKvHeads * keys * kHeadDim, 1.7f);
    value = numbers(kKvHeads * keys * kValueDim, 1);
    bias = numbers(kHeads * queries * columns, 2);
    for (std::size_t i = 0; i < bias.size(); ++i) mask.push_back(random.Bits() % 3 != 0);
    AttentionOptions& options = spec.options;
    options.cumulative_query_lengths = query_offsets;
    options.cumulative_key_lengths = key_offsets;
    spec.query = SplitHeads<const float>(query.data(), 1, kHeads, queries, kHeadDim);
    spec.key = SplitHeads<const float>(key.data(), 1, kKvHeads, keys, kHeadDim);
    spec.value = SplitHeads<const float>(value.data(), 1, kKvHeads, keys, kValueDim);
    if (choice & 1) options.causal = CausalMode::kBottomRight;
    if (choice & 2) options.sliding_window_left = 5;
    if (choice & 4) options.mask = SplitHeads<const std::uint8_t>(mask.data(), 1, kHeads, queries, columns);
    if (choice & 8) options.bias = SplitHeads<const float>(bias.data(), 1, kHeads, queries, columns);
    if (choice & 16) options.alibi_slopes = slopes;
    if (choice & 32) options.sinks = sinks;
  }
  RaggedCase(const RaggedCase&) = delete;

  SdpaProblem Problem() const {
    absl::StatusOr<SdpaProblem> problem = SdpaProblem::Create(spec);
    if (!problem.ok()) ADD_FAILURE() << problem.status();
    return *std::move(problem);
  }

  std::vector<std::int64_t> query_offsets, key_offsets;
  std::int64_t columns = 1;
  std::vector<float> query, key, value, bias, slopes = {0.5f, 0.25f, 0.125f, 1}, sinks = {0, 1, -1, 2};
  std::vector<std::uint8_t> mask;
  SdpaProblem::Spec spec;
};

const std::vector<std::int64_t> kQueries = {3, 0, 70, 1, 9, 4}, kKeys = {5, 2, 70, 1100, 0, 64};

// Compares row t of `all` [heads, rows, columns] with row `own` of `one` [heads, own_rows, own_columns]; columns beyond
// hold `beyond`.
void ExpectRow(const std::vector<float>& all, std::int64_t rows, std::int64_t columns, std::int64_t t,
               const std::vector<float>& one, std::int64_t own_rows, std::int64_t own_columns, std::int64_t own,
               float beyond) {
  const std::int64_t heads = static_cast<std::int64_t>(one.size()) / (own_rows * own_columns);
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t j = 0; j < columns; ++j) {
      const float actual = all[static_cast<std::size_t>((h * rows + t) * columns + j)];
      const float expected =
          j < own_columns ? one[static_cast<std::size_t>((h * own_rows + own) * own_columns + j)] : beyond;
      ASSERT_EQ(std::memcmp(&actual, &expected, sizeof(float)), 0)
          << "head " << h << " row " << t << " column " << j << ": " << actual << ", expected " << expected;
    }
  }
}

TEST(Ragged, EachSequenceHasTheBitsThatItHasAlone) {
  Executor executor({.num_threads = 3});
  for (unsigned choice = 0; choice < 64; ++choice) {
    SCOPED_TRACE(choice);
    const RaggedCase ragged(kQueries, kKeys, choice);
    const SdpaProblem problem = ragged.Problem();
    ASSERT_EQ(problem.score_columns(), 1100);
    const std::int64_t rows = problem.query_length(), columns = problem.score_columns();
    Results all(rows, columns);
    ASSERT_TRUE(ComputeSdpa(problem, all.outputs, {.executor = choice % 2 ? &executor : nullptr}).ok());
    for (std::int64_t n = 0; n < 6; ++n) {
      const std::int64_t first = ragged.query_offsets[n], own_rows = kQueries[n];
      if (own_rows == 0) continue;
      const SdpaProblem alone = problem.SequenceAlone(n);
      const std::int64_t own_columns = alone.key_length();
      Results one(own_rows, own_columns);
      ASSERT_TRUE(ComputeSdpa(alone, one.outputs, {}).ok());
      for (std::int64_t own = 0; own < own_rows; ++own) {
        const std::int64_t t = first + own;
        ExpectRow(all.output, rows, kValueDim, t, one.output, own_rows, kValueDim, own, 0);
        ExpectRow(all.weights, rows, columns, t, one.weights, own_rows, own_columns, own, 0);
        ExpectRow(all.scores, rows, columns, t, one.scores, own_rows, own_columns, own, -INFINITY);
        ExpectRow(all.averaged, rows, columns, t, one.averaged, own_rows, own_columns, own, 0);
        ExpectRow(all.log_sum_exp, rows, 1, t, one.log_sum_exp, own_rows, 1, own, 0);
        ExpectRow(all.top, rows, kTop, t, one.top, own_rows, kTop, own, 0);
      }
    }
  }
}

TEST(Ragged, AgreesWithTheReference) {
  for (unsigned choice = 0; choice < 64; choice += 3) {
    const RaggedCase ragged({3, 0, 30, 1, 9}, {5, 2, 30, 50, 0}, choice);
    const SdpaProblem problem = ragged.Problem();
    const ReferenceResult expected = ReferenceSdpa(problem);
    Results actual(problem.query_length(), problem.score_columns());
    ASSERT_TRUE(ComputeSdpa(problem, actual.outputs, {}).ok());
    EXPECT_TRUE(AllNear(actual.output, expected.output, 3e-6)) << choice;
    EXPECT_TRUE(AllNear(actual.weights, expected.attention_weights, 3e-6)) << choice;
    EXPECT_TRUE(AllNear(actual.averaged, expected.averaged_weights, 3e-6)) << choice;
    EXPECT_TRUE(AllNear(actual.log_sum_exp, expected.log_sum_exp, 2e-5)) << choice;
  }
}

// The same as sequences padded to one length, by another way through the code.
TEST(Ragged, AgreesWithAPaddedBatch) {
  const RaggedCase ragged({4, 9, 1}, {4, 9, 1}, 1);
  const SdpaProblem problem = ragged.Problem();
  Results all(14, 9);
  ASSERT_TRUE(ComputeSdpa(problem, all.outputs, {}).ok());
  const auto pad = [&](const std::vector<float>& packed, std::int64_t heads, std::int64_t dim) {
    std::vector<float> padded(static_cast<std::size_t>(3 * heads * 9 * dim), NAN);
    for (std::int64_t n = 0; n < 3; ++n) {
      for (std::int64_t h = 0; h < heads; ++h) {
        const std::int64_t first = ragged.query_offsets[n], length = ragged.query_offsets[n + 1] - first;
        std::copy_n(&packed[static_cast<std::size_t>((h * 14 + first) * dim)], length * dim,
                    &padded[static_cast<std::size_t>((n * heads + h) * 9 * dim)]);
      }
    }
    return padded;
  };
  const std::vector<float> query = pad(ragged.query, kHeads, kHeadDim), key = pad(ragged.key, kKvHeads, kHeadDim),
                           value = pad(ragged.value, kKvHeads, kValueDim);
  const std::vector<std::int64_t> lengths = {4, 9, 1};
  AttentionOptions options = ragged.spec.options;
  options.cumulative_query_lengths = options.cumulative_key_lengths = {};
  options.valid_lengths = options.query_lengths = lengths;
  const SdpaProblem padded =
      *SdpaProblem::Create({SplitHeads<const float>(query.data(), 3, kHeads, 9, kHeadDim),
                            SplitHeads<const float>(key.data(), 3, kKvHeads, 9, kHeadDim),
                            SplitHeads<const float>(value.data(), 3, kKvHeads, 9, kValueDim), options});
  std::vector<float> output(3 * kHeads * 9 * kValueDim);
  ASSERT_TRUE(ComputeSdpa(padded, {.output = SplitHeads(output.data(), 3, kHeads, 9, kValueDim)}, {}).ok());
  for (std::int64_t n = 0; n < 3; ++n) {
    for (std::int64_t h = 0; h < kHeads; ++h) {
      for (std::int64_t i = 0; i < lengths[n] * kValueDim; ++i) {
        ASSERT_EQ(all.output[static_cast<std::size_t>((h * 14 + ragged.query_offsets[n]) * kValueDim + i)],
                  output[static_cast<std::size_t>((n * kHeads + h) * 9 * kValueDim + i)]);
      }
    }
  }
}

TEST(Ragged, CostsWhatItsSequencesCost) {
  const RaggedCase ragged({10, 20}, {10, 20}, 0);
  EXPECT_EQ(ragged.Problem().Flops(), 2.0 * (kHeadDim + kValueDim) * kHeads * (10 * 10 + 20 * 20));
}

TEST(Ragged, WrongOffsetsAreNamed) {
  const struct {
    std::vector<std::int64_t> queries, keys;
    const char* field;
  } cases[] = {
      {{0, 4, 14}, {}, "options.cumulative_key_lengths"},
      {{}, {0, 4, 14}, "options.cumulative_query_lengths"},
      {{0}, {0, 14}, "options.cumulative_query_lengths"},
      {{1, 14}, {0, 14}, "options.cumulative_query_lengths[0]"},
      {{0, -1, 14}, {0, 5, 14}, "options.cumulative_query_lengths[1]"},
      {{0, 9, 8, 14}, {0, 5, 6, 14}, "options.cumulative_query_lengths[2]"},
      {{0, 13}, {0, 14}, "options.cumulative_query_lengths[1]"},
      {{0, 15}, {0, 14}, "options.cumulative_query_lengths[1]"},
      {{0, 14}, {0, 14, 14}, "options.cumulative_key_lengths"},
      {{0, 14}, {0, INT64_MAX}, "options.cumulative_key_lengths[1]"},
  };
  for (const auto& c : cases) {
    RaggedCase ragged({14}, {14}, 0);
    ragged.spec.options.cumulative_query_lengths = c.queries;
    ragged.spec.options.cumulative_key_lengths = c.keys;
    const absl::Status status = SdpaProblem::Create(ragged.spec).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::StartsWith(status.message(), c.field)) << status;
  }
  RaggedCase with_lengths({14}, {14}, 0);
  const std::vector<std::int64_t> lengths = {3};
  with_lengths.spec.options.valid_lengths = lengths;
  EXPECT_FALSE(SdpaProblem::Create(with_lengths.spec).ok());
  RaggedCase with_query_lengths({7, 7}, {7, 7}, 0);  // No sequence has so many queries.
  const std::vector<std::int64_t> query_lengths = {14};
  with_query_lengths.spec.options.query_lengths = query_lengths;
  EXPECT_FALSE(SdpaProblem::Create(with_query_lengths.spec).ok());
}

}  // namespace
}  // namespace attend
