// TLS of an HttpServer: the files in force, and what a client's certificate says.
#ifndef ATTEND_SERVER_HTTP_HTTP_TLS_H_
#define ATTEND_SERVER_HTTP_HTTP_TLS_H_

#include <boost/asio/ssl/context.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/mutex.h"

namespace attend::server {

// Thread-safe.
class HttpTls {
 public:
  // Of a certificate in PEM. Must be thread-safe, and must not throw.
  using IsRevoked = std::function<bool(const std::string& certificate)>;

  // PEM files: certificate chain and key in one, and the authorities of clients, who must then present a certificate;
  // empty: they need none. `is_revoked` says so of a client's certificate; empty: none is. Errors: INVALID_ARGUMENT;
  // INTERNAL when OpenSSL can make no connections.
  static absl::StatusOr<std::shared_ptr<HttpTls>> Load(const std::string& identity_path,
                                                       const std::string& authorities_path,
                                                       IsRevoked is_revoked = nullptr);

  // Reads the files again, for connections from now on. Errors: as Load; what was in force stays so.
  absl::Status Reload() ABSL_LOCKS_EXCLUDED(mu_);

  std::shared_ptr<boost::asio::ssl::context> current() const ABSL_LOCKS_EXCLUDED(mu_);
  bool mutual() const { return !authorities_path_.empty(); }
  // Whether the peer may stay, once the handshake has verified its certificate: it is not revoked.
  bool Admits(SSL* connection) const;

 private:
  HttpTls(std::string identity_path, std::string authorities_path, IsRevoked is_revoked)
      : identity_path_(std::move(identity_path)),
        authorities_path_(std::move(authorities_path)),
        is_revoked_(std::move(is_revoked)) {}

  const std::string identity_path_;
  const std::string authorities_path_;
  const IsRevoked is_revoked_;
  mutable Mutex mu_;
  std::shared_ptr<boost::asio::ssl::context> context_ ABSL_GUARDED_BY(mu_);
};

// The names of the certificate that the peer of a connection showed, as Credentials::certificate: `uri:`, then `dns:`,
// then `cn:`; empty without a certificate.
std::vector<std::string> PeerCertificateNames(SSL* connection);

}  // namespace attend::server

#endif  // ATTEND_SERVER_HTTP_HTTP_TLS_H_
