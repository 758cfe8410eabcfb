// What server/config/transport_settings.cc needs to compile; no test of tests/fake_grpc turns TLS on.
#ifndef ATTEND_TESTS_FAKE_GRPC_GRPCPP_SECURITY_TLS_CREDENTIALS_OPTIONS_H_
#define ATTEND_TESTS_FAKE_GRPC_GRPCPP_SECURITY_TLS_CREDENTIALS_OPTIONS_H_

#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>

#include <memory>

namespace grpc::experimental {

class TlsServerCredentialsOptions {
 public:
  explicit TlsServerCredentialsOptions(const std::shared_ptr<FileWatcherCertificateProvider>& /*provider*/) {}
  void watch_identity_key_cert_pairs() {}
  void watch_root_certs() {}
  void set_certificate_verifier(const std::shared_ptr<CertificateVerifier>& /*verifier*/) {}
  void set_cert_request_type(grpc_ssl_client_certificate_request_type /*type*/) {}
};

inline std::shared_ptr<ServerCredentials> TlsServerCredentials(const TlsServerCredentialsOptions& /*options*/) {
  return std::make_shared<ServerCredentials>();
}

}  // namespace grpc::experimental

#endif  // ATTEND_TESTS_FAKE_GRPC_GRPCPP_SECURITY_TLS_CREDENTIALS_OPTIONS_H_
