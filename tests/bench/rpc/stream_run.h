// The load generator's streams: keeps a number of requests in flight on one StreamAttend and counts the answers.
//
// One thread drives everything, as in load_run.h; writes and reads are under way at the same time, writes are coalesced
// where gRPC permits it, and no message is parsed but for the id and kind of an answer.
#ifndef ATTEND_TESTS_BENCH_RPC_STREAM_RUN_H_
#define ATTEND_TESTS_BENCH_RPC_STREAM_RUN_H_

#include <grpcpp/generic/generic_stub.h>

#include <string>

#include "tests/bench/rpc/load_run.h"

namespace attend::bench {

// `request` is a serialized AttendRequest. Of `options`, `rate` is not used and `deadline_seconds` is the stream's.
// Answers with a result count as code 0; those with a status as the code UNKNOWN, whatever they say; what was never
// answered not at all, and the stream's own end as its code when it is not OK. REQUIRES: as RunLoad.
LoadResult RunStreamLoad(grpc::GenericStub& stub, const std::string& request, const LoadOptions& options);

}  // namespace attend::bench

#endif  // ATTEND_TESTS_BENCH_RPC_STREAM_RUN_H_
