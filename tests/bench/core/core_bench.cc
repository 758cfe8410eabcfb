// How near the kernels come to what the machine can do, and to what others do on it.
//
//   core_bench --benchmark_out=build/bench/core.json --benchmark_out_format=json
//   /usr/bin/python3 tests/bench/core/summarize.py build/bench/core.json build/bench/summary.json
#include <benchmark/benchmark.h>

#include <cstdio>
#include <string_view>

#include "tests/bench/core/cases.h"

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == attend::bench::kMemoryArgument) {
    std::printf("%.9f\n", attend::bench::ExtraBytesOverIo());
    return 0;
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  attend::bench::RegisterSdpaCases();
  attend::bench::RegisterDecodeCases();
  attend::bench::RegisterProjectionCases();
  attend::bench::RegisterMemoryCase();
  attend::bench::RegisterAttendCase();
  attend::bench::RegisterCancelCases();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
