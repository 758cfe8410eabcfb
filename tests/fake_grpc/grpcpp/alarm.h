// grpc::Alarm, for tests/fake_grpc.
#ifndef ATTEND_TESTS_FAKE_GRPC_GRPCPP_ALARM_H_
#define ATTEND_TESTS_FAKE_GRPC_GRPCPP_ALARM_H_

#include <grpc/support/time.h>
#include <grpcpp/completion_queue.h>

namespace grpc {

class Alarm {
 public:
  // Rings at once: REQUIRES: `deadline` has passed.
  void Set(CompletionQueue* queue, gpr_timespec deadline, void* tag);
};

}  // namespace grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_GRPCPP_ALARM_H_
