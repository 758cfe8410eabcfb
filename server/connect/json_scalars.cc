#include "server/connect/json_scalars.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/strings/numbers.h"

namespace attend::server {
namespace {

using google::protobuf::FieldDescriptor;

// Six bits, or -1.
int Base64Digit(int c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+' || c == '-') return 62;
  return c == '/' || c == '_' ? 63 : -1;
}

// The whole number that a decimal with a point or an exponent stands for, by its digits: rounding to double would make
// one of 0.99999999999999999999, and an even one of 9007199254740993.0. False for all that is not exactly whole, and
// beyond 2^53, where readers that go through double take another number for it.
bool ReadDecimal(const std::string& text, std::int64_t& value) {
  constexpr std::int64_t kMost = std::int64_t{1} << 53;
  constexpr std::int64_t kMostShift = 2 * JsonCursor::kMaxToken;  // Beyond it only zero is whole and not too large.
  if (double rounded = 0; !absl::SimpleAtod(text, &rounded)) return false;  // No number, as `1.0.0`.
  const std::size_t end = std::min(text.find_first_of("eE"), text.size());
  std::string digits = text.substr(0, end);
  value = 0;
  if (digits.find_first_of("123456789") == std::string::npos) return true;
  std::int64_t shift = 0;
  if (end < text.size() && !absl::SimpleAtoi(text.substr(end + 1), &shift)) return false;
  if (shift < -kMostShift || shift > kMostShift) return false;
  if (const std::size_t point = digits.find('.'); point != std::string::npos) {
    shift -= static_cast<std::int64_t>(digits.size() - point - 1);
    digits.erase(point, 1);
  }
  for (; shift < 0 && digits.back() == '0'; ++shift) digits.pop_back();
  if (shift < 0) return false;
  digits.append(static_cast<std::size_t>(shift), '0');
  return absl::SimpleAtoi(digits, &value) && value >= -kMost && value <= kMost;
}

// Whether bytes that come one after the other are UTF-8 (RFC 3629).
class Utf8Check {
 public:
  bool Add(int byte) {
    if (left_ > 0) {
      const bool fits = byte >= low_ && byte <= high_;
      low_ = 0x80, high_ = 0xBF, --left_;
      return fits;
    }
    if (byte < 0x80) return true;
    if (byte < 0xC2 || byte > 0xF4) return false;
    left_ = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
    low_ = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;   // No longer form than needed,
    high_ = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF;  // no surrogate, and nothing beyond U+10FFFF.
    return true;
  }
  bool complete() const { return left_ == 0; }

 private:
  int left_ = 0, low_ = 0x80, high_ = 0xBF;
};

}  // namespace

const char* JsonScalars::Read(const FieldDescriptor& field) {
  switch (field.type()) {
    case FieldDescriptor::TYPE_FLOAT: return Float();
    case FieldDescriptor::TYPE_DOUBLE: return Double();
    case FieldDescriptor::TYPE_INT32: return Whole<std::int32_t>();
    case FieldDescriptor::TYPE_INT64: return Whole<std::int64_t>();
    case FieldDescriptor::TYPE_UINT32: return Whole<std::uint32_t>();
    case FieldDescriptor::TYPE_UINT64: return Whole<std::uint64_t>();
    case FieldDescriptor::TYPE_BOOL: return Bool();
    case FieldDescriptor::TYPE_ENUM: return Enum(field);
    case FieldDescriptor::TYPE_BYTES: return Base64();
    default: return Text();
  }
}

// As a number, or as one in quotes. What is beyond double becomes infinite.
const char* JsonScalars::Number(double& value) {
  if (in_.PeekToken() != '"') {
    if (!in_.TakeNumber(token_)) return "a number is expected";
  } else {
    in_.Next();
    if (!in_.TakeString(token_)) return "a number is expected";
    for (const auto& [word, meaning] : {std::pair("NaN", std::numeric_limits<double>::quiet_NaN()),
                                        std::pair("Infinity", std::numeric_limits<double>::infinity()),
                                        std::pair("-Infinity", -std::numeric_limits<double>::infinity())}) {
      if (token_ != word) continue;
      value = meaning;
      return nullptr;
    }
    if (token_.empty() || token_.find_first_not_of("+-.0123456789eE") != std::string::npos) {
      return "a number is expected";
    }
  }
  if (!absl::SimpleAtod(token_, &value)) return "a number is expected";
  return std::isinf(value) ? "the number is too large" : nullptr;
}

const char* JsonScalars::Float() {
  constexpr double kMost = std::numeric_limits<float>::max();
  constexpr double kRoundsToMost = 3.4028235677973366e+38;  // And what is less: half a step beyond the greatest float.
  double value = 0;
  if (const char* const wrong = Number(value)) return wrong;
  if (!std::isinf(value) && std::abs(value) > kMost) {
    if (std::abs(value) >= kRoundsToMost) return "the number is too large for a float";
    value = std::copysign(kMost, value);
  }
  const auto narrow = static_cast<float>(value);
  std::uint32_t bits = 0;
  std::memcpy(&bits, &narrow, sizeof bits);
  out_.Fixed(bits, sizeof bits);
  return nullptr;
}

const char* JsonScalars::Double() {
  double value = 0;
  if (const char* const wrong = Number(value)) return wrong;
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  out_.Fixed(bits, sizeof bits);
  return nullptr;
}

// A whole number, in quotes or not, also written as 2.0 or 1e3.
template <typename Integer>
const char* JsonScalars::Whole() {
  if (const bool quoted = in_.Take('"'); !(quoted ? in_.TakeString(token_) : in_.TakeNumber(token_))) {
    return "a whole number is expected";
  }
  if (token_.empty() || token_.find_first_not_of("+-.0123456789eE") != std::string::npos) {
    return "a whole number is expected";
  }
  Integer value = 0;
  if (!absl::SimpleAtoi(token_, &value)) {
    std::int64_t whole = 0;
    const bool is_whole = ReadDecimal(token_, whole) && (whole >= 0 || std::is_signed_v<Integer>);
    value = static_cast<Integer>(whole);
    if (!is_whole || static_cast<std::int64_t>(value) != whole) {
      return "a whole number of the field's size is expected, beyond 2^53 without a point or an exponent";
    }
  }
  out_.Varint(static_cast<std::uint64_t>(static_cast<std::int64_t>(value)));
  return nullptr;
}

const char* JsonScalars::Bool() {
  const bool is = in_.PeekToken() == 't';
  if (!in_.TakeWord(is ? "true" : "false")) return "true or false is expected";
  out_.Byte(is ? 1 : 0);
  return nullptr;
}

const char* JsonScalars::Enum(const FieldDescriptor& field) {
  if (in_.PeekToken() != '"') return Whole<std::int32_t>();
  in_.Next();
  if (!in_.TakeString(token_)) return "the name of a value is no string";
  const auto* const value = field.enum_type()->FindValueByName(token_);
  if (value == nullptr) return "there is no value of this name";
  out_.Varint(static_cast<std::uint64_t>(std::int64_t{value->number()}));
  return nullptr;
}

const char* JsonScalars::Text() {
  constexpr const char* kNoString = "no string as JSON has them, in UTF-8";
  if (!in_.Take('"')) return "a string is expected";
  Utf8Check utf8;
  for (int next = in_.NextOfString(); next != JsonCursor::kEnd; next = in_.NextOfString()) {
    if (next == JsonCursor::kWrong || !utf8.Add(next)) return kNoString;
    out_.Byte(static_cast<std::uint8_t>(next));
  }
  return utf8.complete() ? nullptr : kNoString;
}

const char* JsonScalars::Base64() {
  if (!in_.Take('"')) return "bytes in base64, in quotes, are expected";
  unsigned bits = 0;
  int digits = 0;  // Of a group of four.
  int next = in_.NextOfString();
  for (int digit = Base64Digit(next); digit >= 0; digit = Base64Digit(next)) {
    bits = bits << 6 | static_cast<unsigned>(digit);
    if (++digits > 1) out_.Byte(static_cast<std::uint8_t>(bits >> (8 - 2 * digits)));
    if (digits == 4) digits = 0;
    if (digits == 0) bits = 0;
    next = in_.NextOfString();
  }
  int padding = 0;
  for (; next == '='; next = in_.NextOfString()) ++padding;
  const bool ends = next == JsonCursor::kEnd && digits != 1 && (padding == 0 || (digits > 0 && digits + padding == 4));
  return ends ? nullptr : "no base64";
}

}  // namespace attend::server
