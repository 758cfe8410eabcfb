#include "tests/bench/core/harness.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <future>
#include <utility>
#include <vector>

namespace attend::bench {
namespace {

constexpr double kSecondsPerMeasurement = 0.02;

double ReadClock(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace

double ThreadClock() { return ReadClock(CLOCK_THREAD_CPUTIME_ID); }

double WallClock() { return ReadClock(CLOCK_MONOTONIC); }

double Seconds(Clock clock, const std::function<void()>& work) {
  const double start = clock();
  work();
  return clock() - start;
}

Measurement RateOf(Clock clock, std::function<void()> work, double amount) {
  work();
  const int calls = std::max(1, static_cast<int>(kSecondsPerMeasurement / Seconds(clock, work)));
  return [clock, work = std::move(work), amount, calls] {
    const double seconds = Seconds(clock, [&] {
      for (int i = 0; i < calls; ++i) work();
    });
    return amount * calls / seconds;
  };
}

double Median(const Measurement& measurement) {
  std::vector<double> values;
  for (int round = 0; round < kRounds; ++round) values.push_back(measurement());
  std::nth_element(values.begin(), values.begin() + kRounds / 2, values.end());
  return values[kRounds / 2];
}

double MedianQuotient(const Measurement& ours, const Measurement& theirs) {
  return Median([&] {
    const double before = theirs();
    const double rate = ours();
    return rate / ((before + theirs()) / 2);
  });
}

void RunOn(Executor& executor, const std::function<void()>& work) {
  std::packaged_task<void()> task(work);
  const std::future<void> done = task.get_future();
  if (!executor.Submit(std::move(task))) std::abort();
  done.wait();
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

void Register(const std::string& name, std::function<Figure()> measure) {
  const auto run = [measure = std::move(measure)](benchmark::State& state) {
    for (auto _ : state) {
      const Figure figure = measure();
      if (!figure.skipped.empty()) return state.SkipWithError(figure.skipped.c_str());
      state.counters["value"] = figure.value;
      state.SetLabel(figure.note);
    }
  };
  benchmark::RegisterBenchmark(name.c_str(), run)->Iterations(1)->Unit(benchmark::kMillisecond);
}

}  // namespace attend::bench
