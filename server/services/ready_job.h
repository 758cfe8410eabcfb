// A Job whose response is known once its request is: how methods that compute nothing fit the unary path.
#ifndef ATTEND_SERVER_SERVICES_READY_JOB_H_
#define ATTEND_SERVER_SERVICES_READY_JOB_H_

#include "server/rpc/job.h"

namespace attend::server {

// Thread-compatible, as every Job.
class ReadyJob final : public Job {
 public:
  explicit ReadyJob(const grpc::ByteBuffer& response) : response_(response) {}

  double flops() const override { return 0; }
  double memory_bytes() const override { return 0; }  // Too little to count.
  absl::Status Compute(const ComputeContext& /*context*/) override { return absl::OkStatus(); }
  grpc::ByteBuffer TakeResponse() override { return response_; }

 private:
  grpc::ByteBuffer response_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_SERVICES_READY_JOB_H_
