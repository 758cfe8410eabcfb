#include "formats/files/tls_files.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace attend {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{1} << 20;

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using Certificate = std::unique_ptr<X509, Free>;
using Key = std::unique_ptr<EVP_PKEY, Free>;

// `--tls-cert: 'server.pem'`: the start of each error sentence.
std::string Subject(const PemFile& file) { return absl::StrCat(file.flag, ": '", file.path, "'"); }

absl::Status Refuse(const PemFile& file, const std::string& sentence) {
  return absl::InvalidArgumentError(absl::StrCat(Subject(file), " ", sentence));
}

// Takes OpenSSL's last error, in words, and empties its queue.
std::string LastReason() {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  std::string text = reason == nullptr ? "unknown reason" : reason;
  ERR_clear_error();
  return text;
}

std::string TextOf(const ASN1_TIME* time) {
  const std::unique_ptr<BIO, Free> out(BIO_new(BIO_s_mem()));
  ASN1_TIME_print(out.get(), time);
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);  // NOLINT(google-runtime-int): OpenSSL's type.
  return std::string(text, static_cast<std::size_t>(size));
}

// The blocks of a PEM file, sorted.
struct Blocks {
  std::vector<Certificate> certificates;
  bool damaged_certificate = false;
  bool has_key = false;
  bool has_encrypted_key = false;
  bool damaged = false;  // A block that OpenSSL cannot read ends the file.
};

void AddBlock(const std::string& name, const std::string& header, const unsigned char* data, long size,  // NOLINT
              Blocks& blocks) {
  if (absl::EndsWith(name, "PRIVATE KEY")) {
    const bool encrypted = name == PEM_STRING_PKCS8 || absl::StrContains(header, "ENCRYPTED");
    (encrypted ? blocks.has_encrypted_key : blocks.has_key) = true;
  } else if (name == PEM_STRING_X509 || name == PEM_STRING_X509_OLD || name == PEM_STRING_X509_TRUSTED) {
    Certificate certificate(name == PEM_STRING_X509_TRUSTED ? d2i_X509_AUX(nullptr, &data, size)
                                                            : d2i_X509(nullptr, &data, size));
    blocks.damaged_certificate = blocks.damaged_certificate || certificate == nullptr;
    if (certificate != nullptr) blocks.certificates.push_back(std::move(certificate));
  }
}

Blocks ReadBlocks(const std::string& contents) {
  Blocks blocks;
  const std::unique_ptr<BIO, Free> in(BIO_new_mem_buf(contents.data(), static_cast<int>(contents.size())));
  char* name = nullptr;
  char* header = nullptr;
  unsigned char* data = nullptr;
  long size = 0;  // NOLINT(google-runtime-int): OpenSSL's type.
  while (PEM_read_bio(in.get(), &name, &header, &data, &size) == 1) {
    AddBlock(name, header, data, size, blocks);
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_clear_free(data, static_cast<std::size_t>(size));
  }
  blocks.damaged = ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE;
  ERR_clear_error();
  return blocks;
}

// The blocks of a file that must hold certificates; `other` is the flag of the key that belongs to them, if any does.
absl::StatusOr<Blocks> ReadCertificates(const PemFile& file, const std::string& other) {
  Blocks blocks = ReadBlocks(file.contents);
  if (blocks.damaged || blocks.damaged_certificate) {
    return Refuse(file, "is damaged: it has a PEM block that cannot be read; write it anew");
  }
  if (!blocks.certificates.empty()) return blocks;
  if (!blocks.has_key && !blocks.has_encrypted_key) return Refuse(file, "holds no certificate");
  if (other.empty()) return Refuse(file, "holds a private key and no certificate");
  return Refuse(file,
                absl::StrCat("holds a private key and no certificate; are ", file.flag, " and ", other, " exchanged?"));
}

absl::StatusOr<Key> ReadKey(const PemFile& file, const std::string& other) {
  const Blocks blocks = ReadBlocks(file.contents);
  if (!blocks.has_key && blocks.has_encrypted_key) {
    return Refuse(file,
                  "is encrypted, and nobody can be asked for its passphrase; write it without one: openssl pkey "
                  "-in ENCRYPTED -out FILE");
  }
  if (!blocks.has_key && !blocks.certificates.empty()) {
    return Refuse(
        file, absl::StrCat("holds a certificate and no private key; are ", other, " and ", file.flag, " exchanged?"));
  }
  if (!blocks.has_key) return Refuse(file, "holds no private key");
  const std::unique_ptr<BIO, Free> in(BIO_new_mem_buf(file.contents.data(), static_cast<int>(file.contents.size())));
  const auto refuse_to_ask = [](char*, int, int, void*) { return -1; };
  Key key(PEM_read_bio_PrivateKey(in.get(), nullptr, refuse_to_ask, nullptr));
  if (key == nullptr) return Refuse(file, absl::StrCat("holds a private key that cannot be read: ", LastReason()));
  return key;
}

bool IsInForce(const X509* certificate) {
  return X509_cmp_current_time(X509_get0_notBefore(certificate)) < 0 &&
         X509_cmp_current_time(X509_get0_notAfter(certificate)) > 0;
}

absl::Status CheckDates(const PemFile& file, const X509* certificate) {
  if (IsInForce(certificate)) return absl::OkStatus();
  const ASN1_TIME* end = X509_get0_notAfter(certificate);
  if (X509_cmp_current_time(end) < 0) {
    return Refuse(file, absl::StrCat("expired on ", TextOf(end), "; every peer would refuse it: renew it"));
  }
  return Refuse(file, absl::StrCat("is valid from ", TextOf(X509_get0_notBefore(certificate)),
                                   " on, which is still to come; compare this machine's clock"));
}

absl::Status CheckPair(const PemFile& chain, const std::vector<Certificate>& certificates, const PemFile& key_file,
                       EVP_PKEY* key) {
  for (std::size_t i = 0; i < certificates.size(); ++i) {
    const bool fits = X509_check_private_key(certificates[i].get(), key) == 1;
    ERR_clear_error();
    if (fits && i == 0) return absl::OkStatus();
    if (fits) {
      return Refuse(
          chain, absl::StrCat("starts with the certificate of an issuer: the one that belongs to ", Subject(key_file),
                              " is number ", i + 1, "; put it first, and each certificate's issuer after it"));
    }
  }
  return Refuse(key_file, absl::StrCat("is not the private key of the certificate in ", Subject(chain),
                                       "; give the pair that was made together"));
}

// What OpenSSL itself refuses at its security level, such as short keys.
absl::Status CheckStrength(const PemFile& chain, X509* certificate, EVP_PKEY* key) {
  ERR_clear_error();
  const std::unique_ptr<SSL_CTX, Free> context(SSL_CTX_new(TLS_method()));
  if (context == nullptr) {
    return absl::InternalError(absl::StrCat("OpenSSL can make no TLS connections: ", LastReason()));
  }
  if (SSL_CTX_use_certificate(context.get(), certificate) == 1 && SSL_CTX_use_PrivateKey(context.get(), key) == 1) {
    return absl::OkStatus();
  }
  return Refuse(chain, absl::StrCat("is refused by OpenSSL: ", LastReason(), "; make a new certificate and key"));
}

}  // namespace

absl::StatusOr<PemFile> ReadPemFile(const std::string& flag, const std::string& path) {
  PemFile file{flag, path, ""};
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return Refuse(file, "is a directory; name a PEM file");
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::InvalidArgumentError(absl::StrCat(flag, ": cannot read '", path, "': ", std::strerror(errno)));
  file.contents.resize(kMaxBytes + 1);
  in.read(file.contents.data(), static_cast<std::streamsize>(file.contents.size()));
  if (in.bad()) return absl::InvalidArgumentError(absl::StrCat(flag, ": reading '", path, "' failed"));
  file.contents.resize(static_cast<std::size_t>(in.gcount()));
  if (file.contents.empty()) return Refuse(file, "is empty");
  if (file.contents.size() > kMaxBytes) return Refuse(file, "is larger than 1 MiB; name a PEM file");
  if (absl::StrContains(file.contents, "-----BEGIN ")) return file;
  return Refuse(file, "is not a PEM file: it has no -----BEGIN line");
}

absl::Status CheckIdentity(const PemFile& chain, const PemFile& key_file) {
  const absl::StatusOr<Blocks> blocks = ReadCertificates(chain, key_file.flag);
  if (!blocks.ok()) return blocks.status();
  const absl::StatusOr<Key> key = ReadKey(key_file, chain.flag);
  if (!key.ok()) return key.status();
  absl::Status status = CheckPair(chain, blocks->certificates, key_file, key->get());
  X509* own = blocks->certificates.front().get();
  if (status.ok()) status = CheckDates(chain, own);
  return status.ok() ? CheckStrength(chain, own, key->get()) : status;
}

absl::StatusOr<std::int64_t> CertificateExpiry(const PemFile& chain) {
  const absl::StatusOr<Blocks> blocks = ReadCertificates(chain, /*other=*/"");
  if (!blocks.ok()) return blocks.status();
  std::tm time{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(blocks->certificates.front().get()), &time) != 1) {
    return Refuse(chain, "has a certificate whose expiry cannot be read");
  }
  return timegm(&time);
}

absl::Status CheckAuthorities(const PemFile& authorities) {
  const absl::StatusOr<Blocks> blocks = ReadCertificates(authorities, "");
  if (!blocks.ok()) return blocks.status();
  for (const Certificate& certificate : blocks->certificates) {
    if (IsInForce(certificate.get())) return absl::OkStatus();
  }
  return CheckDates(authorities, blocks->certificates.front().get());
}

}  // namespace attend
