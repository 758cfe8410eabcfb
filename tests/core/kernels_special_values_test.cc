// NaN, Infinity, masked rows and keys that must not be read.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "core/runtime/executor.h"
#include "gtest/gtest.h"
#include "tests/support/attend_case.h"
#include "tests/support/sdpa_case.h"

namespace attend {
namespace {

using testing::AttendCase;
using testing::AttendSpec;
using testing::SameBits;
using testing::SdpaCase;
using testing::SdpaCaseSpec;
using testing::SdpaResult;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

SdpaResult Compute(const SdpaProblem& problem, InstructionSet set) {
  SdpaResult result(problem);
  ComputeContext context;
  context.instruction_set = set;
  EXPECT_TRUE(ComputeSdpa(problem, result.Outputs(), context).ok());
  return result;
}

// Few rows go one way through the kernels, many another.
constexpr std::int64_t kFewAndMany[] = {3, 40};

TEST(KernelsSpecialValues, FullyMaskedRowGivesZerosAndMinusInfinity) {
  for (std::int64_t queries : kFewAndMany) {
    for (bool sinks : {false, true}) {
      SdpaCaseSpec spec;
      spec.queries = queries;
      spec.keys = 1100;
      spec.mask = true;
      spec.sinks = sinks;
      SdpaCase sdpa_case(spec);
      std::memset(sdpa_case.mask.data() + 2 * spec.keys, 0, static_cast<std::size_t>(spec.keys));
      const SdpaProblem problem = sdpa_case.Problem();
      for (InstructionSet set : SupportedInstructionSets()) {
        const SdpaResult result = Compute(problem, set);
        for (std::int64_t v = 0; v < spec.value_dim; ++v) EXPECT_EQ(result.output[2 * 8 + v], 0.0f);
        for (std::int64_t j = 0; j < spec.keys; ++j) {
          EXPECT_EQ(result.weights[2 * spec.keys + j], 0.0f);
          EXPECT_EQ(result.scores[2 * spec.keys + j], -kInf);
        }
        if (sinks) {
          EXPECT_NEAR(result.log_sum_exp[2], sdpa_case.sinks[0], 1e-6);
        } else {
          EXPECT_EQ(result.log_sum_exp[2], -kInf);
        }
        EXPECT_TRUE(std::isfinite(result.log_sum_exp[1]));
      }
    }
  }
}

// The sum over values multiplies NaN by 0 first; that the row has no keys must be known in spite of its sink.
TEST(KernelsSpecialValues, NoValueOfAFullyMaskedRowLeaksBesideAnOddSink) {
  for (std::int64_t queries : kFewAndMany) {
    for (float sink : {kInf, kNan, 2.0f, -kInf}) {
      SdpaCaseSpec spec;
      spec.queries = queries;
      spec.keys = 70;
      spec.mask = true;
      spec.sinks = true;
      SdpaCase sdpa_case(spec);
      std::fill(sdpa_case.mask.begin(), sdpa_case.mask.end(), std::uint8_t{0});
      std::fill(sdpa_case.value.begin(), sdpa_case.value.end(), kNan);
      std::fill(sdpa_case.sinks.begin(), sdpa_case.sinks.end(), sink);
      const SdpaProblem problem = sdpa_case.Problem();
      for (InstructionSet set : SupportedInstructionSets()) {
        const SdpaResult result = Compute(problem, set);
        for (float output : result.output) ASSERT_EQ(output, 0.0f) << "sink " << sink;
        for (float log_sum_exp : result.log_sum_exp) {
          ASSERT_TRUE(std::isnan(sink) ? std::isnan(log_sum_exp) : log_sum_exp == sink)
              << log_sum_exp << " of " << sink;
        }
      }
    }
  }
}

TEST(KernelsSpecialValues, NoValidKeysAtAll) {
  for (std::int64_t queries : kFewAndMany) {
    SdpaCaseSpec spec;
    spec.queries = queries;
    spec.keys = 100;
    spec.valid_lengths = {0};
    const SdpaCase sdpa_case(spec);
    const SdpaProblem problem = sdpa_case.Problem();
    for (InstructionSet set : SupportedInstructionSets()) {
      const SdpaResult result = Compute(problem, set);
      for (float x : result.output) EXPECT_EQ(x, 0.0f);
      for (float x : result.weights) EXPECT_EQ(x, 0.0f);
      for (float x : result.averaged) EXPECT_EQ(x, 0.0f);
      for (float x : result.scores) EXPECT_EQ(x, -kInf);
      for (float x : result.log_sum_exp) EXPECT_EQ(x, -kInf);
    }
  }
}

// Overwrites what masked keys hold and expects not a bit to change.
void ExpectMaskedKeysDoNotLeak(const SdpaCaseSpec& spec, float poison) {
  SdpaCase sdpa_case(spec);
  const SdpaProblem problem = sdpa_case.Problem();
  for (InstructionSet set : SupportedInstructionSets()) {
    const SdpaResult clean = Compute(problem, set);
    const std::vector<float> key = sdpa_case.key, value = sdpa_case.value;
    for (std::int64_t j = 0; j < spec.keys; ++j) {
      bool masked = true;
      for (std::int64_t t = 0; t < spec.queries; ++t) masked = masked && clean.scores[t * spec.keys + j] == -kInf;
      if (!masked) continue;
      for (std::int64_t d = 0; d < spec.head_dim; ++d) sdpa_case.key[j * spec.head_dim + d] = poison;
      for (std::int64_t d = 0; d < spec.value_dim; ++d) sdpa_case.value[j * spec.value_dim + d] = poison;
    }
    EXPECT_NE(0, std::memcmp(key.data(), sdpa_case.key.data(), key.size() * sizeof(float))) << "nothing was masked";
    EXPECT_TRUE(SameBits(clean, Compute(problem, set)))
        << poison << " " << InstructionSetName(set) << " " << ::testing::PrintToString(spec);
    std::copy(key.begin(), key.end(), sdpa_case.key.begin());
    std::copy(value.begin(), value.end(), sdpa_case.value.begin());
  }
}

TEST(KernelsSpecialValues, MaskedKeysDoNotLeakNanOrInfinity) {
  for (std::int64_t queries : kFewAndMany) {
    for (float poison : {kNan, kInf, -kInf}) {
      SdpaCaseSpec spec;
      spec.queries = queries;
      spec.keys = 1150;
      spec.value_dim = 20;
      SdpaCaseSpec masked = spec;
      masked.mask = masked.broadcast = true;
      SdpaCase probe(masked);
      SdpaCaseSpec lengths = spec;
      lengths.valid_lengths = {1070};
      ExpectMaskedKeysDoNotLeak(lengths, poison);
      SdpaCaseSpec window = spec;
      window.window_left = 5;
      ExpectMaskedKeysDoNotLeak(window, poison);
      SdpaCaseSpec causal = spec;
      causal.causal = CausalMode::kTopLeft;
      ExpectMaskedKeysDoNotLeak(causal, poison);
    }
  }
}

// Key 7 is masked for every second row and holds NaN: those rows stay as they are, the others become NaN.
TEST(KernelsSpecialValues, NanReachesExactlyTheRowsThatSeeIt) {
  for (std::int64_t queries : kFewAndMany) {
    for (bool by_bias : {false, true}) {
      SdpaCaseSpec spec;
      spec.queries = queries;
      spec.keys = 90;
      spec.mask = !by_bias;
      spec.bias = by_bias;
      SdpaCase sdpa_case(spec);
      for (std::int64_t t = 0; t < queries; ++t) {
        const auto at = static_cast<std::size_t>(t * spec.keys + 7);
        if (by_bias) sdpa_case.bias[at] = t % 2 == 0 ? -kInf : 0.0f;
        if (!by_bias) sdpa_case.mask[at] = t % 2 == 0 ? 0 : 1;
      }
      const SdpaProblem problem = sdpa_case.Problem();
      for (InstructionSet set : SupportedInstructionSets()) {
        const SdpaResult clean = Compute(problem, set);
        sdpa_case.value[7 * 8 + 3] = kNan;
        const SdpaResult poisoned = Compute(problem, set);
        sdpa_case.value[7 * 8 + 3] = 0;
        for (std::int64_t t = 0; t < queries; ++t) {
          for (std::int64_t v = 0; v < 8; ++v) {
            const auto at = static_cast<std::size_t>(t * 8 + v);
            if (v == 3) {
              EXPECT_EQ(std::isnan(poisoned.output[at]), t % 2 == 1) << t << InstructionSetName(set);
            } else {
              EXPECT_EQ(0, std::memcmp(&poisoned.output[at], &clean.output[at], 4)) << t << " " << v;
            }
          }
        }
      }
    }
  }
}

TEST(KernelsSpecialValues, NanAndInfinityInVisibleInputsPropagate) {
  for (std::int64_t queries : kFewAndMany) {
    SdpaCaseSpec spec;
    spec.queries = queries;
    spec.keys = 1100;
    SdpaCase sdpa_case(spec);
    const SdpaProblem problem = sdpa_case.Problem();
    for (InstructionSet set : SupportedInstructionSets()) {
      const SdpaResult clean = Compute(problem, set);
      const float saved = sdpa_case.query[8];
      sdpa_case.query[8] = kNan;  // Row 1.
      const SdpaResult nan_query = Compute(problem, set);
      sdpa_case.query[8] = saved;
      for (std::int64_t v = 0; v < 8; ++v) {
        EXPECT_TRUE(std::isnan(nan_query.output[8 + v])) << InstructionSetName(set);
        EXPECT_EQ(nan_query.output[16 + v], clean.output[16 + v]);
      }
      EXPECT_TRUE(std::isnan(nan_query.log_sum_exp[1]));
      EXPECT_TRUE(std::isnan(nan_query.weights[static_cast<std::size_t>(spec.keys)]));

      sdpa_case.value[1050 * 8] = kInf;
      const SdpaResult infinite_value = Compute(problem, set);
      sdpa_case.value[1050 * 8] = 0;
      EXPECT_EQ(infinite_value.output[0], kInf);
      EXPECT_TRUE(std::isfinite(infinite_value.output[1]));

      const float saved_key = sdpa_case.key[1050 * 8];
      sdpa_case.key[1050 * 8] = kNan;
      const SdpaResult nan_key = Compute(problem, set);
      sdpa_case.key[1050 * 8] = saved_key;
      for (float x : nan_key.output) EXPECT_TRUE(std::isnan(x));
    }
  }
}

// Tensors that end where readable memory ends.
class GuardedFloats {
 public:
  explicit GuardedFloats(const std::vector<float>& floats, std::size_t readable) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t bytes = readable * sizeof(float);
    size_ = (bytes + page - 1) / page * page + page;
    base_ = static_cast<char*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    data_ = reinterpret_cast<float*>(base_ + size_ - page - bytes);
    std::memcpy(data_, floats.data(), bytes);
    EXPECT_EQ(0, mprotect(base_ + size_ - page, page, PROT_NONE));
  }
  ~GuardedFloats() { munmap(base_, size_); }
  GuardedFloats(const GuardedFloats&) = delete;
  GuardedFloats& operator=(const GuardedFloats&) = delete;
  const float* data() const { return data_; }

 private:
  char* base_;
  std::size_t size_;
  float* data_;
};

TEST(KernelsSpecialValues, KeysBeyondTheValidLengthAreNeverRead) {
  for (std::int64_t queries : kFewAndMany) {
    for (std::int64_t valid : {1, 63, 70, 1030}) {
      for (std::int64_t dim : {5, 16, 19}) {
        SdpaCaseSpec spec;
        spec.queries = queries;
        spec.keys = 1100;
        spec.head_dim = spec.value_dim = dim;
        spec.valid_lengths = {valid};
        const SdpaCase sdpa_case(spec);
        const auto readable = static_cast<std::size_t>(valid * dim);
        const GuardedFloats key(sdpa_case.key, readable), value(sdpa_case.value, readable);
        const auto all = static_cast<std::size_t>(queries * dim);
        const GuardedFloats query(sdpa_case.query, all);
        const absl::StatusOr<SdpaProblem> problem = SdpaProblem::Create(
            {SplitHeads(query.data(), 1, 1, queries, dim), SplitHeads(key.data(), 1, 1, spec.keys, dim),
             SplitHeads(value.data(), 1, 1, spec.keys, dim), sdpa_case.options});
        ASSERT_TRUE(problem.ok());
        for (InstructionSet set : SupportedInstructionSets()) {
          EXPECT_TRUE(SameBits(Compute(*problem, set), Compute(sdpa_case.Problem(), set)));
        }
      }
    }
  }
}

// Counts how often a computation looks whether to go on, and cancels it at one of them.
class Looks final : public TileBreak {
 public:
  Looks(std::atomic<bool>& cancelled, int cancel_at) : cancelled_(cancelled), cancel_at_(cancel_at) {}
  void Look() override {
    if (++count == cancel_at_) cancelled_ = true;
  }

  std::atomic<int> count{0};

 private:
  std::atomic<bool>& cancelled_;
  const int cancel_at_;
};

TEST(KernelsSpecialValues, CancellationIsNoticedBeforeTheEnd) {
  SdpaCaseSpec spec;
  spec.queries = spec.keys = 3000;
  spec.head_dim = spec.value_dim = 64;
  const SdpaCase sdpa_case(spec);
  const SdpaProblem problem = sdpa_case.Problem();
  SdpaResult result(problem, testing::Ask::kOutput);
  Executor executor({.num_threads = 2});
  for (Executor* helpers : {static_cast<Executor*>(nullptr), &executor}) {
    std::atomic<bool> cancelled{true};
    ComputeContext context;
    context.executor = helpers;
    context.cancelled = &cancelled;
    EXPECT_EQ(ComputeSdpa(problem, result.Outputs(), context).code(), absl::StatusCode::kCancelled);

    cancelled = false;
    Looks all(cancelled, /*cancel_at=*/-1), some(cancelled, /*cancel_at=*/10);
    context.tile_break = &all;
    EXPECT_TRUE(ComputeSdpa(problem, result.Outputs(), context).ok());
    context.tile_break = &some;
    EXPECT_EQ(ComputeSdpa(problem, result.Outputs(), context).code(), absl::StatusCode::kCancelled);
    EXPECT_LT(some.count, all.count / 4) << "every group of rows looks once, and then no more";
  }
}

// Notes whether it was asked when there was nothing left to do.
class LooksAtTheEnd final : public TileBreak {
 public:
  explicit LooksAtTheEnd(std::function<bool()> is_complete) : is_complete_(std::move(is_complete)) {}
  void Look() override {
    ++count;
    at_the_end = at_the_end || is_complete_();
  }

  int count = 0;
  bool at_the_end = false;

 private:
  const std::function<bool()> is_complete_;
};

// `compute` writes `output`: the second time, whoever is let in must find a part of it missing.
template <typename T, typename Compute>
void ExpectNobodyLetInAtTheEnd(std::vector<T>& output, const Compute& compute) {
  ComputeContext context;
  ASSERT_TRUE(compute(context).ok());
  const std::vector<T> complete = output;
  std::fill(output.begin(), output.end(), T{kNan});
  LooksAtTheEnd looks([&] { return std::memcmp(output.data(), complete.data(), complete.size() * sizeof(T)) == 0; });
  context.tile_break = &looks;
  ASSERT_TRUE(compute(context).ok());
  EXPECT_GT(looks.count, 1);
  EXPECT_FALSE(looks.at_the_end);
}

TEST(KernelsSpecialValues, NobodyIsLetInBeforeAResultThatIsComplete) {
  constexpr std::int64_t kTokens = 600, kDim = 64;
  SdpaCaseSpec spec;
  spec.queries = spec.keys = kTokens;
  spec.head_dim = spec.value_dim = kDim;
  const SdpaCase sdpa_case(spec);
  const std::vector<std::int64_t> offsets = {0, 250, kTokens};
  for (const bool ragged : {false, true}) {
    SCOPED_TRACE(ragged ? "ragged" : "whole");
    AttentionOptions options = sdpa_case.options;
    if (ragged) options.cumulative_query_lengths = options.cumulative_key_lengths = offsets;

    const auto problem = SdpaProblem::Create({sdpa_case.query_view, sdpa_case.key_view, sdpa_case.value_view, options});
    ASSERT_TRUE(problem.ok()) << problem.status();
    std::vector<float> output(kTokens * kDim);
    SdpaOutputs outputs;
    outputs.output = SplitHeads(output.data(), 1, 1, kTokens, kDim);
    ExpectNobodyLetInAtTheEnd(output,
                              [&](const ComputeContext& context) { return ComputeSdpa(*problem, outputs, context); });

    const std::vector<double> numbers(sdpa_case.query.begin(), sdpa_case.query.end());
    const auto view = SplitHeads(numbers.data(), 1, 1, kTokens, kDim);
    const auto in_double = SdpaProblem::Create({view, view, view, options});
    ASSERT_TRUE(in_double.ok()) << in_double.status();
    std::vector<double> doubles(kTokens * kDim);
    outputs.output = SplitHeads(doubles.data(), 1, 1, kTokens, kDim);
    ExpectNobodyLetInAtTheEnd(doubles,
                              [&](const ComputeContext& context) { return ComputeSdpa(*in_double, outputs, context); });
  }
  AttendSpec layer;
  layer.queries = layer.keys = kTokens;
  layer.output_dim = layer.embed;
  const AttendCase attend_case(layer);
  const AttendProblem problem = attend_case.Problem();
  std::vector<float> output(kTokens * static_cast<std::size_t>(layer.output_dim));
  AttendOutputs outputs;
  outputs.output = output.data();
  ExpectNobodyLetInAtTheEnd(output,
                            [&](const ComputeContext& context) { return ComputeAttend(problem, outputs, context); });
}

}  // namespace
}  // namespace attend
