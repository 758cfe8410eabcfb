// SHA-256 (FIPS 180-4) of bytes that arrive in pieces.
#ifndef ATTEND_FORMATS_FILES_SHA256_H_
#define ATTEND_FORMATS_FILES_SHA256_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace attend::formats {

using Sha256Digest = std::array<std::uint8_t, 32>;

// Uses the processor's SHA instructions where it has them. Where OpenSSL cannot compute it, ends the process with a
// sentence. Thread-compatible.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void Update(std::string_view bytes);

  // Of all bytes so far. REQUIRES: called at most once; no Update after it.
  Sha256Digest Finish();

  static Sha256Digest Of(std::string_view bytes);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// 64 characters, lower case.
std::string ToHex(const Sha256Digest& digest);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_FILES_SHA256_H_
