#include "formats/files/sha256.h"

#include <openssl/err.h>
#include <openssl/evp.h>

#include <cstdio>
#include <cstdlib>

#include "absl/strings/escaping.h"

namespace attend::formats {
namespace {

// Ends the process unless OpenSSL did what it was asked: with a digest that is no digest all layers would have one
// etag, and a damaged file could pass for a good one. The causes are an OpenSSL configuration without SHA-256 and a
// lack of memory.
void Require(bool done) {
  if (done) return;
  const char* const reason = ERR_reason_error_string(ERR_peek_last_error());
  std::fprintf(stderr, "OpenSSL cannot compute SHA-256: %s; look at its configuration (OPENSSL_CONF, openssl.cnf)\n",
               reason == nullptr ? "out of memory" : reason);
  std::abort();
}

}  // namespace

struct Sha256::State {
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> evp{EVP_MD_CTX_new(), &EVP_MD_CTX_free};
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  Require(state_->evp != nullptr && EVP_DigestInit_ex(state_->evp.get(), EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::Update(std::string_view bytes) {
  Require(EVP_DigestUpdate(state_->evp.get(), bytes.data(), bytes.size()) == 1);
}

Sha256Digest Sha256::Finish() {
  Sha256Digest digest{};
  Require(EVP_DigestFinal_ex(state_->evp.get(), digest.data(), nullptr) == 1);
  return digest;
}

Sha256Digest Sha256::Of(std::string_view bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.Finish();
}

std::string ToHex(const Sha256Digest& digest) {
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

}  // namespace attend::formats
