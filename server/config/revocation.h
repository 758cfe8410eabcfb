// Refuses connections with revoked client certificates, after the handshake has verified them.
#ifndef ATTEND_SERVER_CONFIG_REVOCATION_H_
#define ATTEND_SERVER_CONFIG_REVOCATION_H_

#include <grpcpp/security/tls_certificate_verifier.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "core/base/mutex.h"
#include "formats/files/revocation_list.h"

namespace attend::server {

// The list in force. Thread-safe.
class Revocations {
 public:
  void Set(RevocationList list) ABSL_LOCKS_EXCLUDED(mu_) {
    auto fresh = std::make_shared<const RevocationList>(std::move(list));
    const MutexLock lock(mu_);
    list_.swap(fresh);
  }
  bool Has(const std::string& certificate) const ABSL_LOCKS_EXCLUDED(mu_) {
    std::shared_ptr<const RevocationList> list;
    {
      const MutexLock lock(mu_);
      list = list_;
    }
    return list != nullptr && list->Has(certificate);
  }

 private:
  mutable Mutex mu_;
  std::shared_ptr<const RevocationList> list_ ABSL_GUARDED_BY(mu_);  // Null: none.
};

// What gRPC asks about each new connection. Thread-safe; never waits.
class RevocationVerifier final : public grpc::experimental::ExternalCertificateVerifier {
 public:
  explicit RevocationVerifier(std::shared_ptr<const Revocations> revocations) : revocations_(std::move(revocations)) {}

  bool Verify(grpc::experimental::TlsCustomVerificationCheckRequest* request,
              std::function<void(grpc::Status)> /*callback*/, grpc::Status* status) override {
    const grpc::string_ref certificate = request->peer_cert();
    if (revocations_->Has(std::string(certificate.data(), certificate.size()))) {
      *status = grpc::Status(grpc::StatusCode::UNAUTHENTICATED, "the client certificate is revoked");
    }
    return true;  // Answered at once.
  }
  void Cancel(grpc::experimental::TlsCustomVerificationCheckRequest* /*request*/) override {}

 private:
  const std::shared_ptr<const Revocations> revocations_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONFIG_REVOCATION_H_
