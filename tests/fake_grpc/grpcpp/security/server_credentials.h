// grpc::ServerCredentials, for tests/fake_grpc: there is nothing to be secured.
#ifndef ATTEND_TESTS_FAKE_GRPC_GRPCPP_SECURITY_SERVER_CREDENTIALS_H_
#define ATTEND_TESTS_FAKE_GRPC_GRPCPP_SECURITY_SERVER_CREDENTIALS_H_

#include <memory>

namespace grpc {

class ServerCredentials {};

inline std::shared_ptr<ServerCredentials> InsecureServerCredentials() { return std::make_shared<ServerCredentials>(); }

}  // namespace grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_GRPCPP_SECURITY_SERVER_CREDENTIALS_H_
