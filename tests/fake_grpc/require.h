// What gRPC asserts of those who use it.
#ifndef ATTEND_TESTS_FAKE_GRPC_REQUIRE_H_
#define ATTEND_TESTS_FAKE_GRPC_REQUIRE_H_

#include <cstdio>
#include <cstdlib>

namespace attend::fake_grpc {

// Ends the test program with `what` unless `condition` holds, as gRPC ends the server.
inline void Require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "misuse of gRPC: %s\n", what);
  std::abort();
}

}  // namespace attend::fake_grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_REQUIRE_H_
