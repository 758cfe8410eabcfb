// What server/config/revocation.h needs to compile; no test of tests/fake_grpc turns TLS on.
#ifndef ATTEND_TESTS_FAKE_GRPC_GRPCPP_SECURITY_TLS_CERTIFICATE_VERIFIER_H_
#define ATTEND_TESTS_FAKE_GRPC_GRPCPP_SECURITY_TLS_CERTIFICATE_VERIFIER_H_

#include <grpcpp/support/status.h>

#include <functional>
#include <memory>
#include <utility>

#include "grpcpp/security/auth_context.h"

namespace grpc::experimental {

class TlsCustomVerificationCheckRequest {
 public:
  grpc::string_ref peer_cert() const { return {}; }
};

class CertificateVerifier {};

class ExternalCertificateVerifier {
 public:
  virtual ~ExternalCertificateVerifier() = default;
  template <typename Subclass, typename... Args>
  static std::shared_ptr<CertificateVerifier> Create(Args&&... /*args*/) {
    return std::make_shared<CertificateVerifier>();
  }
  virtual bool Verify(TlsCustomVerificationCheckRequest* request, std::function<void(grpc::Status)> callback,
                      grpc::Status* status) = 0;
  virtual void Cancel(TlsCustomVerificationCheckRequest* request) = 0;
};

}  // namespace grpc::experimental

#endif  // ATTEND_TESTS_FAKE_GRPC_GRPCPP_SECURITY_TLS_CERTIFICATE_VERIFIER_H_
