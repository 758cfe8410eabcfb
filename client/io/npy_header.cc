#include "client/io/npy_header.h"

#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace attend::client {
namespace {

constexpr std::size_t kAlignment = 64;

struct TypeCode {
  std::string_view code;
  ElementType type;
};
constexpr TypeCode kTypeCodes[] = {
    {"<f4", ElementType::kFloat32}, {"<f8", ElementType::kFloat64}, {"<f2", ElementType::kFloat16},
    {"|b1", ElementType::kBool},    {"|i1", ElementType::kInt8},    {"<i2", ElementType::kInt16},
    {"<i4", ElementType::kInt32},   {"<i8", ElementType::kInt64},   {"|u1", ElementType::kUint8},
    {"<u2", ElementType::kUint16},  {"<u4", ElementType::kUint32},  {"<u8", ElementType::kUint64},
};

absl::Status Malformed(const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("the .npy header is malformed: ", why));
}

absl::StatusOr<ElementType> FindType(const std::string& code) {
  for (const TypeCode& entry : kTypeCodes) {
    if (entry.code == code) return entry.type;
  }
  if (code.size() > 1 && code[1] == 'O') {
    return absl::InvalidArgumentError("the .npy file holds Python objects (a pickle); only numbers are read");
  }
  if (!code.empty() && code[0] == '>') {
    return absl::InvalidArgumentError(
        absl::StrCat("the .npy element type '", code, "' is big-endian; save it little-endian, as in astype('<f4')"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the .npy element type '", code, "' is not supported; use float32 ('<f4')"));
}

// A reader of the one kind of Python literal that .npy headers are.
class Literal {
 public:
  explicit Literal(std::string_view text) : text_(text) {}

  // Skips blanks, then `token` if it comes next.
  bool Take(std::string_view token) {
    SkipBlanks();
    if (text_.substr(0, token.size()) != token) return false;
    text_.remove_prefix(token.size());
    return true;
  }

  bool AtEnd() {
    SkipBlanks();
    return text_.empty();
  }

  // 'text' or "text", without escapes.
  std::optional<std::string> String() {
    const char quote = Take("'") ? '\'' : '"';
    if (quote == '"' && !Take("\"")) return std::nullopt;
    const std::size_t end = text_.find(quote);
    if (end == std::string_view::npos) return std::nullopt;
    std::string value(text_.substr(0, end));
    text_.remove_prefix(end + 1);
    return value.find('\\') == std::string::npos ? std::make_optional(std::move(value)) : std::nullopt;
  }

  std::optional<bool> Bool() {
    if (Take("True")) return true;
    if (Take("False")) return false;
    return std::nullopt;
  }

  // (), (5,), (5, 64) or (5, 64,) of integers that are not negative.
  std::optional<std::vector<std::int64_t>> Tuple() {
    std::vector<std::int64_t> values;
    if (!Take("(")) return std::nullopt;
    bool comma = true;
    while (!Take(")")) {
      const std::optional<std::int64_t> value = comma ? Integer() : std::nullopt;
      if (!value.has_value()) return std::nullopt;
      values.push_back(*value);
      comma = Take(",");
    }
    // (5) is a number in Python, not a tuple.
    return values.size() == 1 && !comma ? std::nullopt : std::make_optional(std::move(values));
  }

 private:
  void SkipBlanks() {
    const std::size_t begin = text_.find_first_not_of(" \n");
    text_.remove_prefix(begin == std::string_view::npos ? text_.size() : begin);
  }

  std::optional<std::int64_t> Integer() {
    SkipBlanks();
    std::size_t end = text_.find_first_not_of("0123456789");
    if (end == std::string_view::npos) end = text_.size();
    std::int64_t value = 0;
    if (end == 0 || !absl::SimpleAtoi(absl::string_view(text_.data(), end), &value)) return std::nullopt;
    text_.remove_prefix(end);
    return value;
  }

  std::string_view text_;
};

struct Fields {
  std::optional<std::string> descr;
  std::optional<bool> fortran_order;
  std::optional<std::vector<std::int64_t>> shape;
};

// Reads the value of `key` into its field.
absl::Status ReadField(const std::string& key, Literal& literal, Fields& fields) {
  if (key == "descr" && !fields.descr.has_value()) {
    fields.descr = literal.String();
    return fields.descr.has_value() ? absl::OkStatus()
                                    : Malformed("'descr' is not a string; structured types are not supported");
  }
  if (key == "fortran_order" && !fields.fortran_order.has_value()) {
    fields.fortran_order = literal.Bool();
    return fields.fortran_order.has_value() ? absl::OkStatus() : Malformed("'fortran_order' is not True or False");
  }
  if (key == "shape" && !fields.shape.has_value()) {
    fields.shape = literal.Tuple();
    return fields.shape.has_value() ? absl::OkStatus()
                                    : Malformed("'shape' is not a tuple of integers that are at least 0");
  }
  return Malformed(absl::StrCat("the key '", key, "' is unknown or comes twice"));
}

}  // namespace

absl::StatusOr<NpyHeader> ParseNpyHeader(std::string_view text) {
  Literal literal(text);
  Fields fields;
  if (!literal.Take("{")) return Malformed("it does not begin with '{'");
  while (!literal.Take("}")) {
    const std::optional<std::string> key = literal.String();
    if (!key.has_value() || !literal.Take(":")) return Malformed("a key in quotes and a colon were expected");
    if (absl::Status status = ReadField(*key, literal, fields); !status.ok()) return status;
    if (literal.Take(",")) continue;
    if (!literal.Take("}")) return Malformed("a comma or '}' was expected after a value");
    break;
  }
  if (!literal.AtEnd()) return Malformed("something follows the dictionary");
  if (!fields.descr || !fields.fortran_order || !fields.shape) {
    return Malformed("'descr', 'fortran_order' and 'shape' must all be given");
  }
  if (static_cast<std::int64_t>(fields.shape->size()) > kMaxNpyAxes) {
    return Malformed(absl::StrCat("'shape' has ", fields.shape->size(), " axes; at most ", kMaxNpyAxes, " are read"));
  }
  const absl::StatusOr<ElementType> type = FindType(*fields.descr);
  if (!type.ok()) return type.status();
  return NpyHeader{*type, *fields.fortran_order, *std::move(fields.shape)};
}

absl::StatusOr<std::string> FormatNpyPrefix(ElementType type, const std::vector<std::int64_t>& shape) {
  std::string_view code;
  for (const TypeCode& entry : kTypeCodes) {
    if (entry.type == type) code = entry.code;
  }
  if (code.empty()) return absl::InvalidArgumentError("NumPy has no bfloat16; write a .safetensors file instead");
  std::string header = absl::StrCat("{'descr': '", std::string(code), "', 'fortran_order': False, 'shape': (",
                                    absl::StrJoin(shape, ", "), shape.size() == 1 ? ",), }" : "), }");
  constexpr std::size_t kFixed = 10;  // Magic, version and length.
  const std::size_t used = kFixed + header.size() + 1;
  header.append((kAlignment - used % kAlignment) % kAlignment, ' ').push_back('\n');
  std::string prefix("\x93NUMPY\x01\x00", 8);
  prefix.push_back(static_cast<char>(header.size() & 0xff));
  prefix.push_back(static_cast<char>(header.size() >> 8));
  return prefix + header;
}

}  // namespace attend::client
