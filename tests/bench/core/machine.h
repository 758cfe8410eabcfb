// What this machine can do at best, measured right next to what the kernels do.
#ifndef ATTEND_TESTS_BENCH_CORE_MACHINE_H_
#define ATTEND_TESTS_BENCH_CORE_MACHINE_H_

#include <cstdint>

#include "core/kernels/instruction_set.h"

namespace attend::bench {

// Runs independent fused multiply-adds in registers with the instruction set's widest vectors for about a millisecond;
// returns operations per second of one core (a multiply-add is two).
double MeasurePeakFlops(InstructionSet set);

// Reads `count` floats once; returns bytes per second of one core.
double MeasureReadBandwidth(InstructionSet set, const float* data, std::int64_t count);

// The two loops for one instruction set.
struct Loops {
  double (*fused_multiply_adds)(std::int64_t rounds);  // Returns the operations done.
  void (*read_all)(const float* data, std::int64_t count);
};

}  // namespace attend::bench

#endif  // ATTEND_TESTS_BENCH_CORE_MACHINE_H_
