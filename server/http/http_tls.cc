#include "server/http/http_tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "absl/strings/str_cat.h"

namespace attend::server {
namespace {

namespace ssl = boost::asio::ssl;
using Error = boost::system::error_code;

absl::Status NoContext(SSL_CTX* half_made) {
  SSL_CTX_free(half_made);
  const char* const reason = ERR_reason_error_string(ERR_peek_last_error());
  ERR_clear_error();
  return absl::InternalError(absl::StrCat("the HTTP door's TLS: OpenSSL can make no TLS connections: ",
                                          reason == nullptr ? "out of memory" : reason));
}

absl::StatusOr<std::shared_ptr<ssl::context>> MakeContext(const std::string& identity_path,
                                                          const std::string& authorities_path) {
  ERR_clear_error();
  SSL_CTX* const native = SSL_CTX_new(TLS_server_method());  // Asio would throw.
  if (native == nullptr || SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION) != 1) return NoContext(native);
  auto context = std::make_shared<ssl::context>(native);  // Which owns it now.
  // Every connection shows its certificate anew: a session that is resumed would outlive a renewed authority.
  SSL_CTX_set_options(native, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_session_cache_mode(native, SSL_SESS_CACHE_OFF);
  Error error;
  context->use_certificate_chain_file(identity_path, error);
  if (!error) context->use_private_key_file(identity_path, ssl::context::pem, error);
  if (!error && !authorities_path.empty()) {
    context->load_verify_file(authorities_path, error);
    // Clients with several certificates choose by it.
    SSL_CTX_set_client_CA_list(native, SSL_load_client_CA_file(authorities_path.c_str()));
    if (!error) context->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert, error);
  }
  if (error) return absl::InvalidArgumentError(absl::StrCat("the HTTP door's TLS files: ", error.message()));
  return context;
}

void AddSubjectNames(X509* certificate, int type, const char* prefix, std::vector<std::string>& names) {
  auto* alternatives =
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; i < sk_GENERAL_NAME_num(alternatives); ++i) {
    const GENERAL_NAME* const name = sk_GENERAL_NAME_value(alternatives, i);
    if (name->type != type) continue;
    const ASN1_IA5STRING* const text = name->d.ia5;  // Of URIs and of DNS names.
    names.push_back(absl::StrCat(prefix, absl::string_view(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                                                           static_cast<std::size_t>(ASN1_STRING_length(text)))));
  }
  GENERAL_NAMES_free(alternatives);
}

// The first alone, as gRPC knows it: who is nobody at one door must be nobody at the other.
void AddCommonName(X509* certificate, std::vector<std::string>& names) {
  const X509_NAME* const subject = X509_get_subject_name(certificate);
  const int first = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (first < 0) return;
  unsigned char* text = nullptr;
  const int size = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, first)));
  if (size < 0) return;
  names.push_back(
      absl::StrCat("cn:", absl::string_view(reinterpret_cast<char*>(text), static_cast<std::size_t>(size))));
  OPENSSL_free(text);
}

// Empty when memory is short: that is no certificate.
std::string PemOf(X509* certificate) {
  BIO* const memory = BIO_new(BIO_s_mem());
  std::string pem;
  char* text = nullptr;
  if (memory != nullptr && PEM_write_bio_X509(memory, certificate) == 1) {
    const long size = BIO_get_mem_data(memory, &text);  // NOLINT(google-runtime-int)
    pem.assign(text, static_cast<std::size_t>(size));
  }
  BIO_free(memory);
  return pem;
}

}  // namespace

absl::StatusOr<std::shared_ptr<HttpTls>> HttpTls::Load(const std::string& identity_path,
                                                       const std::string& authorities_path, IsRevoked is_revoked) {
  std::shared_ptr<HttpTls> tls(new HttpTls(identity_path, authorities_path, std::move(is_revoked)));
  if (absl::Status loaded = tls->Reload(); !loaded.ok()) return loaded;
  return tls;
}

absl::Status HttpTls::Reload() {
  auto context = MakeContext(identity_path_, authorities_path_);
  if (!context.ok()) return context.status();
  const MutexLock lock(mu_);
  context_ = *std::move(context);
  return absl::OkStatus();
}

std::shared_ptr<ssl::context> HttpTls::current() const {
  const MutexLock lock(mu_);
  return context_;
}

bool HttpTls::Admits(SSL* connection) const {
  if (!mutual() || !is_revoked_) return true;
  X509* const certificate = SSL_get_peer_certificate(connection);
  if (certificate == nullptr) return false;
  const bool revoked = is_revoked_(PemOf(certificate));
  X509_free(certificate);
  return !revoked;
}

std::vector<std::string> PeerCertificateNames(SSL* connection) {
  std::vector<std::string> names;
  X509* const certificate = SSL_get_peer_certificate(connection);
  if (certificate == nullptr) return names;
  AddSubjectNames(certificate, GEN_URI, "uri:", names);
  AddSubjectNames(certificate, GEN_DNS, "dns:", names);
  AddCommonName(certificate, names);
  // A certificate without a name is one all the same: nobody's.
  if (names.empty()) names.emplace_back("a certificate without a name");
  X509_free(certificate);
  return names;
}

}  // namespace attend::server
