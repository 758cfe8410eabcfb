// What this machine can do at best, measured right next to what the kernels do.
#ifndef ATTEND_TESTS_BENCH_CORE_MACHINE_H_
#define ATTEND_TESTS_BENCH_CORE_MACHINE_H_

#include <array>
#include <cstdint>

#include "core/kernels/instruction_set.h"

namespace attend::bench {

// Runs independent fused multiply-adds in registers with the instruction set's widest vectors for a few milliseconds;
// returns operations per second of one core (a multiply-add is two).
double MeasurePeakFlops(InstructionSet set);

// Reads `count` floats once, `count` a multiple of 4096, and adds them up: less cannot be done with them.
struct ReadLoop {
  const char* name;
  void (*read)(const float* data, std::int64_t count);
};

// The one that reads this memory in the least time. Which it is depends on the prefetchers of the machine: on some, two
// places at a time are faster than one, or prefetching far ahead helps.
ReadLoop FastestReadLoop(InstructionSet set, const float* data, std::int64_t count);

// The loops for one instruction set.
struct Loops {
  double (*fused_multiply_adds)(std::int64_t rounds);  // Returns the operations done.
  std::array<ReadLoop, 6> read;
};

}  // namespace attend::bench

#endif  // ATTEND_TESTS_BENCH_CORE_MACHINE_H_
