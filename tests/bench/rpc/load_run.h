// One bounded run of load against a server: a generator that costs little, so that the server is what is measured.
//
//   LoadResult result = RunLoad(stub, request, {.method = "/attend.v1.AttentionService/Attend", .concurrency = 32});
//
// Closed loop (rate == 0): `concurrency` calls are always in flight. Open loop (rate > 0): calls start at fixed times
// whatever the server does, and a call's latency counts from the time it should have started, so that a slow server
// cannot hide its queue (no coordinated omission).
#ifndef ATTEND_TESTS_BENCH_RPC_LOAD_RUN_H_
#define ATTEND_TESTS_BENCH_RPC_LOAD_RUN_H_

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace attend::bench {

struct LoadOptions {
  std::string method;            // Full path, "/package.Service/Method".
  int concurrency = 32;          // Closed loop: calls in flight. Open loop: the most calls in flight.
  double rate = 0;               // Calls per second; 0 for a closed loop.
  double warmup_seconds = 0.2;   // Run first, not counted.
  double seconds = 2;            // Counted.
  double deadline_seconds = 10;  // Of every call.
  std::string cost_hint;         // `attend-cost-flops` of every call; empty: none.
  std::string token;             // Bearer token of every call; empty: none.
};

// What came back in the counted time, whenever it was sent: so that a queue of any length does not change the rate.
struct LoadResult {
  double seconds = 0;
  std::map<int, std::int64_t> calls_by_code;            // Keys are gRPC status codes; 0 is OK.
  std::map<int, std::vector<float>> latencies_by_code;  // Milliseconds, unsorted.
  std::vector<float> compute;    // Milliseconds, from each `server-timing` trailer that has them.
  std::int64_t not_started = 0;  // Open loop: calls that found `concurrency` others in flight.
  double drain_seconds = 0;      // From the end of the counted time to the end of the last call.
  std::int64_t all_calls = 0;    // Finished at any time, the warm-up and the end included.
};

// REQUIRES: concurrency >= 1, seconds > 0. Runs on the calling thread; returns after the last call has ended.
LoadResult RunLoad(grpc::GenericStub& stub, const grpc::ByteBuffer& request, const LoadOptions& options);

}  // namespace attend::bench

#endif  // ATTEND_TESTS_BENCH_RPC_LOAD_RUN_H_
