// How near the kernels come to what the machine can do. Each case runs in rounds that alternate with a measurement of
// the machine's own peak (multiply-adds in registers, or reading memory), so that a change of clock or a noisy
// neighbour touches both; the case's value is the median of the rounds' quotients.
//
//   core_bench --benchmark_out=build/bench/core.json --benchmark_out_format=json
//   /usr/bin/python3 tests/bench/core/summarize.py build/bench/core.json build/bench/summary.json
#include <benchmark/benchmark.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/attention/compute.h"
#include "core/attention/projection.h"
#include "core/tensor/aligned_buffer.h"
#include "tests/bench/core/machine.h"

namespace attend::bench {
namespace {

constexpr int kRounds = 11;
constexpr double kSecondsPerRound = 0.02;

// Seconds that this thread was on a core: cases of one thread ask how well it uses one, not how often it gets one.
double ThreadSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double Seconds(const std::function<void()>& work) {
  const double start = ThreadSeconds();
  work();
  return ThreadSeconds() - start;
}

double WallSeconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Seconds of one call of `work`, from as many as fill a round.
double SecondsPerCall(const std::function<void()>& work, int calls) {
  return Seconds([&] {
           for (int i = 0; i < calls; ++i) work();
         }) /
         calls;
}

int CallsPerRound(const std::function<void()>& work) {
  work();
  return std::max(1, static_cast<int>(kSecondsPerRound / Seconds(work)));
}

// The median over rounds of `amount` per second of `work`, divided by what `machine` measures right before and after.
double Fraction(const std::function<void()>& work, double amount, const std::function<double()>& machine) {
  const int calls = CallsPerRound(work);
  std::vector<double> fractions;
  for (int round = 0; round < kRounds; ++round) {
    const double before = machine();
    const double rate = amount / SecondsPerCall(work, calls);
    fractions.push_back(rate / ((before + machine()) / 2));
  }
  return Median(fractions);
}

AlignedBuffer<float> Numbers(std::int64_t size) {
  AlignedBuffer<float> numbers(size);
  std::uint32_t state = 12345;
  for (std::int64_t i = 0; i < size; ++i) {
    state = state * 1664525u + 1013904223u;
    numbers[i] = static_cast<float>(static_cast<std::int32_t>(state)) / 2147483648.0f;
  }
  return numbers;
}

struct Shape {
  std::int64_t heads = 1, kv_heads = 1, queries = 0, keys = 0, dim = 0;
  bool causal = false, mask = false, weights = false;
};

// Owns a problem's tensors and results.
class Sdpa {
 public:
  explicit Sdpa(const Shape& s)
      : query_(Numbers(s.heads * s.queries * s.dim)),
        key_(Numbers(s.kv_heads * s.keys * s.dim)),
        value_(Numbers(s.kv_heads * s.keys * s.dim)),
        output_(s.heads * s.queries * s.dim),
        weights_(s.weights ? s.heads * s.queries * s.keys : 0),
        mask_(s.mask ? s.queries * s.keys : 0) {
    SdpaProblem::Spec spec;
    spec.query = SplitHeads<const float>(query_.data(), 1, s.heads, s.queries, s.dim);
    spec.key = SplitHeads<const float>(key_.data(), 1, s.kv_heads, s.keys, s.dim);
    spec.value = SplitHeads<const float>(value_.data(), 1, s.kv_heads, s.keys, s.dim);
    if (s.causal) spec.options.causal = CausalMode::kBottomRight;
    if (s.mask) {
      for (std::int64_t i = 0; i < mask_.size(); ++i) mask_[i] = i * 2654435761u % 8 != 0;
      spec.options.mask = SplitHeads<const std::uint8_t>(mask_.data(), 1, 1, s.queries, s.keys);
    }
    problem_ = *SdpaProblem::Create(spec);
    outputs_.output = SplitHeads(output_.data(), 1, s.heads, s.queries, s.dim);
    if (s.weights) outputs_.attention_weights = SplitHeads(weights_.data(), 1, s.heads, s.queries, s.keys);
  }
  void Compute(Executor* executor = nullptr) const {
    ComputeContext context;
    context.executor = executor;
    if (!ComputeSdpa(*problem_, outputs_, context).ok()) std::abort();
  }
  double Flops() const { return problem_->Flops(); }

  std::int64_t KeyValueBytes() const { return (key_.size() + value_.size()) * 4; }
  std::int64_t IoBytes() const { return KeyValueBytes() + (query_.size() + output_.size()) * 4; }
  const AlignedBuffer<float>& key() const { return key_; }

 private:
  AlignedBuffer<float> query_, key_, value_, output_, weights_;
  AlignedBuffer<std::uint8_t> mask_;
  std::optional<SdpaProblem> problem_;
  SdpaOutputs outputs_;
};

double PeakFraction(const Shape& shape) {
  const Sdpa sdpa(shape);
  return Fraction([&] { sdpa.Compute(); }, sdpa.Flops(), [] { return MeasurePeakFlops(BestInstructionSet()); });
}

// One query against a long context: the keys and values are read once, more than the caches hold.
double DecodeBandwidthFraction() {
  const Sdpa sdpa({.queries = 1, .keys = 65536, .dim = 128});
  const AlignedBuffer<float> other = Numbers(sdpa.KeyValueBytes() / 4);
  return Fraction([&] { sdpa.Compute(); }, static_cast<double>(sdpa.KeyValueBytes()),
                  [&] { return MeasureReadBandwidth(BestInstructionSet(), other.data(), other.size()); });
}

double Scaling() {
  const Sdpa sdpa({.heads = 8, .kv_heads = 8, .queries = 2048, .keys = 2048, .dim = 64});
  Executor helper({.num_threads = 1});  // Beside the calling thread.
  std::vector<double> quotients;
  for (int round = 0; round < kRounds; ++round) {
    const double alone = WallSeconds([&] { sdpa.Compute(); });
    const double both = WallSeconds([&] { sdpa.Compute(&helper); });
    quotients.push_back(alone / both);
  }
  return Median(quotients);
}

// Attention over embeddings with projections, inline weights.
class Attend {
 public:
  Attend(std::int64_t tokens, std::int64_t dim)
      : embeddings_(Numbers(tokens * dim)),
        weight_(Numbers(3 * dim * dim)),
        bias_(Numbers(dim)),
        output_(tokens * dim),
        weights_(tokens * tokens) {
    AttendProblem::Spec spec;
    spec.embeddings = {embeddings_.data(), 1, tokens, dim};
    const auto linear = [&](int i) { return LinearView{weight_.data() + i * dim * dim, bias_.data(), dim, dim}; };
    spec.layer = LayerView{linear(0), linear(1), linear(2), {}, 1, 1};
    problem_ = *AttendProblem::Create(spec);
    outputs_.output = output_.data();
    outputs_.attention_weights = SplitHeads(weights_.data(), 1, 1, tokens, tokens);
  }
  void Compute() const {
    if (!ComputeAttend(*problem_, outputs_, {}).ok()) std::abort();
  }

 private:
  AlignedBuffer<float> embeddings_, weight_, bias_, output_, weights_;
  std::optional<AttendProblem> problem_;
  AttendOutputs outputs_;
};

double TinyMicroseconds() {
  const Attend attend(5, 64);
  const auto work = [&] { attend.Compute(); };
  const int calls = CallsPerRound(work);
  std::vector<double> seconds;
  for (int round = 0; round < kRounds; ++round) seconds.push_back(SecondsPerCall(work, calls));
  return Median(seconds) * 1e6;
}

// The value of `field` (`VmRSS`, `VmHWM`) in bytes.
double ProcessBytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::stod(line.substr(field.size() + 1)) * 1024;
  }
  return NAN;
}

// The growth of this process's peak memory while computing, as a fraction of the tensors' size. In a process of its
// own, because memory once freed does not show again.
double ExtraBytesOverIo() {
  int pipe_ends[2];
  if (pipe(pipe_ends) != 0) return NAN;
  const pid_t child = fork();
  if (child == 0) {
    const Sdpa sdpa({.queries = 32768, .keys = 32768, .dim = 64});
    const Sdpa touch({.queries = 64, .keys = 64, .dim = 64});
    touch.Compute();
    std::ofstream("/proc/self/clear_refs") << "5";  // Resets VmHWM.
    const double before = ProcessBytes("VmRSS");
    // The output's pages are not there yet; they count as output.
    const double output_bytes = 32768.0 * 64 * 4;
    sdpa.Compute();
    const double extra = std::max(0.0, ProcessBytes("VmHWM") - before - output_bytes);
    const double fraction = extra / static_cast<double>(sdpa.IoBytes());
    if (write(pipe_ends[1], &fraction, sizeof(fraction)) < 0) _exit(1);
    _exit(0);
  }
  double fraction = NAN;
  if (read(pipe_ends[0], &fraction, sizeof(fraction)) != sizeof(fraction)) fraction = NAN;
  close(pipe_ends[0]);
  close(pipe_ends[1]);
  waitpid(child, nullptr, 0);
  return fraction;
}

// Query, key and value projections of 512 tokens.
double ProjectionPeakFraction() {
  constexpr std::int64_t kTokens = 512, kDim = 768;
  const AlignedBuffer<float> x = Numbers(kTokens * kDim), weight = Numbers(kDim * kDim), y(kTokens * kDim);
  const Projection projection{x.data(), kTokens, {weight.data(), nullptr, kDim, kDim}, y.data()};
  WorkspacePool pool;
  return Fraction([&] { Project({}, &projection, 1, pool); }, 2.0 * kTokens * kDim * kDim,
                  [] { return MeasurePeakFlops(BestInstructionSet()); });
}

void Register(const std::string& name, std::function<double()> measure) {
  const auto run = [measure](benchmark::State& state) {
    for (auto _ : state) state.counters["value"] = measure();
  };
  benchmark::RegisterBenchmark(name.c_str(), run)->Iterations(1)->Unit(benchmark::kMillisecond);
}

void RegisterPeakFraction(const std::string& name, const Shape& shape) {
  Register("core/sdpa/f32/" + name + "/1t/peak_fraction", [shape] { return PeakFraction(shape); });
}

void RegisterAll() {
  RegisterPeakFraction("T2048/D64", {.queries = 2048, .keys = 2048, .dim = 64});
  RegisterPeakFraction("T2048/D128", {.queries = 2048, .keys = 2048, .dim = 128});
  RegisterPeakFraction("T256/D64", {.queries = 256, .keys = 256, .dim = 64});
  RegisterPeakFraction("causal/T4096/D64", {.queries = 4096, .keys = 4096, .dim = 64, .causal = true});
  RegisterPeakFraction("gqa8/T2048/D128", {.heads = 8, .queries = 2048, .keys = 2048, .dim = 128});
  RegisterPeakFraction("mask/T2048/D64", {.queries = 2048, .keys = 2048, .dim = 64, .mask = true});
  RegisterPeakFraction("weights/T1024/D64", {.queries = 1024, .keys = 1024, .dim = 64, .weights = true});
  Register("core/decode/f32/S65536/D128/bandwidth_fraction", DecodeBandwidthFraction);
  Register("core/scaling/T2048/H8/D64/2t_over_1t", Scaling);
  Register("core/projection/T512/D768/peak_fraction", ProjectionPeakFraction);
  Register("core/memory/T32768/D64/extra_bytes_over_io", ExtraBytesOverIo);
  Register("core/tiny/T5/D64/attend_us", TinyMicroseconds);
}

}  // namespace
}  // namespace attend::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  attend::bench::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
