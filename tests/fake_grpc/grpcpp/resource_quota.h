// grpc::ResourceQuota, for tests/fake_grpc: nothing is bounded.
#ifndef ATTEND_TESTS_FAKE_GRPC_GRPCPP_RESOURCE_QUOTA_H_
#define ATTEND_TESTS_FAKE_GRPC_GRPCPP_RESOURCE_QUOTA_H_

#include <cstddef>
#include <string>

namespace grpc {

class ResourceQuota {
 public:
  explicit ResourceQuota(const std::string& /*name*/) {}
  ResourceQuota& Resize(std::size_t /*bytes*/) { return *this; }
};

}  // namespace grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_GRPCPP_RESOURCE_QUOTA_H_
