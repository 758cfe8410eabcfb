// grpc::AuthContext, for tests/fake_grpc: there is none.
#ifndef ATTEND_TESTS_FAKE_GRPC_GRPCPP_SECURITY_AUTH_CONTEXT_H_
#define ATTEND_TESTS_FAKE_GRPC_GRPCPP_SECURITY_AUTH_CONTEXT_H_

#include <grpcpp/support/string_ref.h>

#include <string>
#include <vector>

namespace grpc {

class AuthContext {
 public:
  std::vector<string_ref> FindPropertyValues(const std::string& /*name*/) const { return {}; }
};

}  // namespace grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_GRPCPP_SECURITY_AUTH_CONTEXT_H_
