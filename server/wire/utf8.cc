#include "server/wire/utf8.h"

#include <cstdint>

namespace attend::server {
namespace {

// The length of a character by its first byte; 0 when none starts so.
std::size_t LengthByFirstByte(std::uint8_t first) {
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return 2;  // C0 and C1 could only start overlong forms.
  if (first >= 0xE0 && first <= 0xEF) return 3;
  if (first >= 0xF0 && first <= 0xF4) return 4;
  return 0;
}

// Overlong forms, surrogates and code points above 10FFFF show in the second byte.
bool IsSecondByte(std::uint8_t first, std::uint8_t second) {
  switch (first) {
    case 0xE0: return second >= 0xA0 && second <= 0xBF;
    case 0xED: return second >= 0x80 && second <= 0x9F;
    case 0xF0: return second >= 0x90 && second <= 0xBF;
    case 0xF4: return second >= 0x80 && second <= 0x8F;
    default: return second >= 0x80 && second <= 0xBF;
  }
}

// The length of the well-formed character at the start of `text`; 0 when there is none. REQUIRES: !text.empty().
std::size_t CharacterLength(std::string_view text) {
  const auto byte = [text](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::size_t length = LengthByFirstByte(byte(0));
  if (length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if (!IsSecondByte(i == 1 ? byte(0) : 0, byte(i))) return 0;
  }
  return length;
}

}  // namespace

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = CharacterLength(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string SafeUtf8(std::string_view text, std::size_t max_bytes) {
  constexpr std::string_view kEllipsis = "...";
  std::string safe;
  std::size_t cut = 0;  // The longest prefix of `safe` that leaves room for the ellipsis.
  while (!text.empty()) {
    const std::size_t length = CharacterLength(text);
    const std::string_view character = length == 0 ? std::string_view("?") : text.substr(0, length);
    if (safe.size() + character.size() > max_bytes) return safe.substr(0, cut).append(kEllipsis);
    safe += character;
    if (safe.size() + kEllipsis.size() <= max_bytes) cut = safe.size();
    text.remove_prefix(character.size());
  }
  return safe;
}

}  // namespace attend::server
