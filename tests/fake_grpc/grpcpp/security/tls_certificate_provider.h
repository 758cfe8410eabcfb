// What server/config/transport_settings.cc needs to compile; no test of tests/fake_grpc turns TLS on.
#ifndef ATTEND_TESTS_FAKE_GRPC_GRPCPP_SECURITY_TLS_CERTIFICATE_PROVIDER_H_
#define ATTEND_TESTS_FAKE_GRPC_GRPCPP_SECURITY_TLS_CERTIFICATE_PROVIDER_H_

#include <string>

namespace grpc::experimental {

class FileWatcherCertificateProvider {
 public:
  FileWatcherCertificateProvider(const std::string& /*key*/, const std::string& /*certificate*/, unsigned /*seconds*/) {
  }
  FileWatcherCertificateProvider(const std::string& /*key*/, const std::string& /*certificate*/,
                                 const std::string& /*authorities*/, unsigned /*seconds*/) {}
};

}  // namespace grpc::experimental

#endif  // ATTEND_TESTS_FAKE_GRPC_GRPCPP_SECURITY_TLS_CERTIFICATE_PROVIDER_H_
