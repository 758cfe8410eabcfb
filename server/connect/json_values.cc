#include "server/connect/json_values.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>

#include "absl/strings/escaping.h"

namespace attend::server {
namespace {

using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

template <typename Number>
void AppendNumber(Number number, std::string& out) {
  char text[32];
  out.append(text, std::to_chars(text, text + sizeof text, number).ptr);
}

// The shortest decimal that reads back.
template <typename Float>
void AppendFloat(Float number, std::string& out) {
  if (std::isnan(number)) {
    out += "\"NaN\"";
  } else if (std::isinf(number)) {
    out += number > 0 ? "\"Infinity\"" : "\"-Infinity\"";
  } else if (sizeof number == sizeof(float) && std::abs(number) == std::numeric_limits<Float>::max()) {
    // As short as 3.4028235e+38, which readers that look at the range before they round take for too large.
    out += number > 0 ? "3.4028234e+38" : "-3.4028234e+38";
  } else {
    AppendNumber(number, out);
  }
}

template <typename Integer>
void AppendQuoted(Integer number, std::string& out) {
  out += '"';
  AppendNumber(number, out);
  out += '"';
}

void AppendEnum(const EnumValueDescriptor* value, int number, std::string& out) {
  // An unknown number has a value of the name UNKNOWN_ENUM_VALUE_..., which the enum does not list.
  if (value->type()->FindValueByNumber(number) == nullptr) return AppendNumber(number, out);
  AppendJsonString(value->name(), out);
}

void AppendBase64(const std::string& bytes, std::string& out) {
  out += '"';
  out += absl::Base64Escape(bytes);
  out += '"';
}

}  // namespace

void AppendJsonString(std::string_view text, std::string& out) {
  constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out += kHex[(static_cast<unsigned char>(c) >> 4) & 0xF];
      out += kHex[static_cast<unsigned char>(c) & 0xF];
    } else {
      out += c;
    }
  }
  out += '"';
}

void AppendJsonScalar(const Message& message, const FieldDescriptor& field, int index, std::string& out) {
  const Reflection& r = *message.GetReflection();
  const bool one = index < 0;
  std::string scratch;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_FLOAT:
      AppendFloat(one ? r.GetFloat(message, &field) : r.GetRepeatedFloat(message, &field, index), out);
      break;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      AppendFloat(one ? r.GetDouble(message, &field) : r.GetRepeatedDouble(message, &field, index), out);
      break;
    case FieldDescriptor::CPPTYPE_INT32:
      AppendNumber(one ? r.GetInt32(message, &field) : r.GetRepeatedInt32(message, &field, index), out);
      break;
    case FieldDescriptor::CPPTYPE_UINT32:
      AppendNumber(one ? r.GetUInt32(message, &field) : r.GetRepeatedUInt32(message, &field, index), out);
      break;
    case FieldDescriptor::CPPTYPE_INT64:
      AppendQuoted(one ? r.GetInt64(message, &field) : r.GetRepeatedInt64(message, &field, index), out);
      break;
    case FieldDescriptor::CPPTYPE_UINT64:
      AppendQuoted(one ? r.GetUInt64(message, &field) : r.GetRepeatedUInt64(message, &field, index), out);
      break;
    case FieldDescriptor::CPPTYPE_BOOL:
      out += (one ? r.GetBool(message, &field) : r.GetRepeatedBool(message, &field, index)) ? "true" : "false";
      break;
    case FieldDescriptor::CPPTYPE_ENUM:
      AppendEnum(one ? r.GetEnum(message, &field) : r.GetRepeatedEnum(message, &field, index),
                 one ? r.GetEnumValue(message, &field) : r.GetRepeatedEnumValue(message, &field, index), out);
      break;
    case FieldDescriptor::CPPTYPE_STRING: {
      const std::string& text = one ? r.GetStringReference(message, &field, &scratch)
                                    : r.GetRepeatedStringReference(message, &field, index, &scratch);
      field.type() == FieldDescriptor::TYPE_BYTES ? AppendBase64(text, out) : AppendJsonString(text, out);
      break;
    }
    case FieldDescriptor::CPPTYPE_MESSAGE: break;  // See above.
  }
}

void AppendJsonNumbers(const Message& message, const FieldDescriptor& field, std::size_t begin, std::size_t end,
                       std::string& out) {
  const Reflection& r = *message.GetReflection();
  for (auto i = static_cast<int>(begin); i < static_cast<int>(end); ++i) {
    if (i > 0) out += ',';
    field.cpp_type() == FieldDescriptor::CPPTYPE_FLOAT ? AppendFloat(r.GetRepeatedFloat(message, &field, i), out)
                                                       : AppendFloat(r.GetRepeatedDouble(message, &field, i), out);
  }
}

}  // namespace attend::server
