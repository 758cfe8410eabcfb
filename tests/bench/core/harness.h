// How a case is timed, and how its figure gets into Google Benchmark's output, where summarize.py finds it.
//
// Every figure but memory's is a median over kRounds rounds. A quotient's two sides take turns within a round, so that
// a change of clock or a noisy neighbour touches both.
#ifndef ATTEND_TESTS_BENCH_CORE_HARNESS_H_
#define ATTEND_TESTS_BENCH_CORE_HARNESS_H_

#include <cstdint>
#include <functional>
#include <string>

#include "core/runtime/executor.h"
#include "core/tensor/aligned_buffer.h"

namespace attend::bench {

inline constexpr int kRounds = 11;

// Seconds since some moment.
using Clock = double (*)();
// Those that this thread was on a core: cases of one thread ask how well it uses one, not how often it gets one.
double ThreadClock();
// For cases of several threads, which wait for each other. Other work on the machine shows in it.
double WallClock();

double Seconds(Clock clock, const std::function<void()>& work);

// Measures once, for some 20 ms; returns a rate.
using Measurement = std::function<double()>;

// `amount` (operations, bytes) per second of `work`, from as many calls as fill 20 ms. Calls `work` to find how many.
Measurement RateOf(Clock clock, std::function<void()> work, double amount);

// Medians over kRounds rounds: of what is measured; of `ours` divided by the mean of `theirs` right before and after.
double Median(const Measurement& measurement);
double MedianQuotient(const Measurement& ours, const Measurement& theirs);

// Runs `work` on one of the executor's threads, as the server does, so that the others help; returns when it is done.
void RunOn(Executor& executor, const std::function<void()>& work);

// `size` numbers in [-1, 1), always the same.
AlignedBuffer<float> Numbers(std::int64_t size);

// What a case found.
struct Figure {
  double value = 0;
  std::string note = {};     // What was compared, where the name does not say it.
  std::string skipped = {};  // Why there is no value; empty when there is one.
};

void Register(const std::string& name, std::function<Figure()> measure);

}  // namespace attend::bench

#endif  // ATTEND_TESTS_BENCH_CORE_HARNESS_H_
