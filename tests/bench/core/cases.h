// The cases, by what they measure. Names are those of summary.json; see summarize.py for what must hold.
#ifndef ATTEND_TESTS_BENCH_CORE_CASES_H_
#define ATTEND_TESTS_BENCH_CORE_CASES_H_

namespace attend::bench {

void RegisterSdpaCases();        // core/sdpa/..., core/scaling/...
void RegisterDecodeCases();      // core/decode/...
void RegisterProjectionCases();  // core/projection/...
void RegisterMemoryCase();       // core/memory/...
void RegisterAttendCase();       // core/tiny/...
void RegisterCancelCases();      // core/cancel/...

// What the memory case measures, in a process that has done nothing else: this program's, started with kMemoryArgument.
inline constexpr char kMemoryArgument[] = "--extra_bytes_over_io";
double ExtraBytesOverIo();

}  // namespace attend::bench

#endif  // ATTEND_TESTS_BENCH_CORE_CASES_H_
