#include "client/cli/layers/sha256.h"

#include <openssl/evp.h>

#include <array>
#include <fstream>
#include <memory>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/io/stream.h"

namespace attend::client {

absl::StatusOr<std::string> Sha256OfFile(const std::string& path) {
  absl::StatusOr<std::ifstream> file = OpenFile(path);
  if (!file.ok()) return file.status();
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr);
  std::vector<char> piece(std::size_t{1} << 20);
  while (file->good()) {
    file->read(piece.data(), static_cast<std::streamsize>(piece.size()));
    EVP_DigestUpdate(context.get(), piece.data(), static_cast<std::size_t>(file->gcount()));
  }
  if (file->bad()) return absl::DataLossError(absl::StrCat("reading ", path, " failed"));
  std::array<char, 32> digest{};
  EVP_DigestFinal_ex(context.get(), reinterpret_cast<unsigned char*>(digest.data()), nullptr);
  return absl::BytesToHexString({digest.data(), digest.size()});
}

}  // namespace attend::client
