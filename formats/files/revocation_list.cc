#include "formats/files/revocation_list.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"

namespace attend {
namespace {

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(X509_CRL* list) const { X509_CRL_free(list); }
};
using Certificate = std::unique_ptr<X509, Free>;
using Crl = std::unique_ptr<X509_CRL, Free>;
using Input = std::unique_ptr<BIO, Free>;

Input Open(const std::string& pem) { return Input(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()))); }

absl::Status Refuse(const PemFile& file, const char* sentence) {
  return absl::InvalidArgumentError(absl::StrCat(file.flag, ": '", file.path, "' ", sentence));
}

bool IsSignedByOneOf(X509_CRL* list, const PemFile& authorities) {
  const Input input = Open(authorities.contents);
  bool found = false;
  for (;;) {
    const Certificate authority(PEM_read_bio_X509(input.get(), nullptr, nullptr, nullptr));
    if (authority == nullptr) break;
    found = found || (X509_NAME_cmp(X509_get_subject_name(authority.get()), X509_CRL_get_issuer(list)) == 0 &&
                      X509_CRL_verify(list, X509_get0_pubkey(authority.get())) == 1);
  }
  ERR_clear_error();
  return found;
}

// Deltas and lists for some reasons or certificates alone have such extensions.
bool HasCriticalExtension(const X509_CRL* list) {
  for (int i = 0; i < X509_CRL_get_ext_count(list); ++i) {
    if (X509_EXTENSION_get_critical(X509_CRL_get_ext(list, i)) != 0) return true;
  }
  return false;
}

absl::Status Check(X509_CRL* list, const PemFile& lists, const PemFile& authorities) {
  if (HasCriticalExtension(list)) return Refuse(lists, "has a list with a critical extension, which is not understood");
  if (!IsSignedByOneOf(list, authorities))
    return Refuse(lists, "has a list that no authority of --tls-client-ca signed");
  const ASN1_TIME* const next = X509_CRL_get0_nextUpdate(list);
  if (X509_cmp_current_time(X509_CRL_get0_lastUpdate(list)) > 0 ||
      (next != nullptr && X509_cmp_current_time(next) < 0)) {
    return Refuse(lists, "has a list that is not in force today; fetch a new one from the authority");
  }
  return absl::OkStatus();
}

}  // namespace

struct RevocationList::List {
  Crl crl;
};

absl::StatusOr<RevocationList> RevocationList::Read(const PemFile& lists, const PemFile& authorities) {
  RevocationList read;
  const Input input = Open(lists.contents);
  for (;;) {
    Crl crl(PEM_read_bio_X509_CRL(input.get(), nullptr, nullptr, nullptr));
    if (crl == nullptr) break;
    if (absl::Status good = Check(crl.get(), lists, authorities); !good.ok()) return good;
    read.lists_.push_back(std::make_shared<const List>(List{std::move(crl)}));
  }
  const bool at_the_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (!at_the_end) return Refuse(lists, "has a list that cannot be read");
  if (read.lists_.empty()) return Refuse(lists, "has no list of revoked certificates (X509 CRL)");
  return read;
}

bool RevocationList::Has(const std::string& pem) const {
  const Input input = Open(pem);
  const Certificate certificate(PEM_read_bio_X509(input.get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  if (certificate == nullptr) return true;
  for (const auto& list : lists_) {
    if (X509_NAME_cmp(X509_CRL_get_issuer(list->crl.get()), X509_get_issuer_name(certificate.get())) != 0) continue;
    X509_REVOKED* entry = nullptr;
    // OpenSSL sorts its entries at the first search, under a lock of its own. 2: taken back (removeFromCRL).
    if (X509_CRL_get0_by_cert(list->crl.get(), &entry, certificate.get()) == 1) return true;
  }
  return false;
}

}  // namespace attend
