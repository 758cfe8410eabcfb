#include "client/text/message_json.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iostream>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace attend::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

Json ProtobufJson(const Message& message, bool with_defaults) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = with_defaults;
  std::string text;
  const auto printed = google::protobuf::util::MessageToJsonString(message, &text, options);
  return printed.ok() ? Json::parse(text) : Json::object();
}

// Applies `change` to a value or to each of a list.
template <typename Change>
void ForEach(Json* value, const Change& change) {
  if (!value->is_array()) return change(value);
  for (Json& element : *value) change(&element);
}

std::string CellText(const std::string& name, const Json& value) {
  if (value.is_array()) return JoinStrings(value);
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_string()) return value.get<std::string>();
  if (absl::EndsWith(name, "_bytes") && value.is_number()) return FormatBytes(value.get<std::int64_t>());
  if (absl::EndsWith(name, "_flops") && value.is_number())
    return absl::StrFormat("%.4g GFLOP", value.get<double>() / 1e9);
  if (absl::EndsWith(name, "_milliseconds") && value.is_number()) return absl::StrFormat("%.4g", value.get<double>());
  return value.dump();
}

}  // namespace

Json JsonNumber(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

Json JsonNumber(float value) {
  if (!std::isfinite(value)) return JsonNumber(static_cast<double>(value));
  char digits[32];
  const std::to_chars_result end = std::to_chars(std::begin(digits), std::end(digits), value);
  double shortest = value;
  std::from_chars(digits, end.ptr, shortest);
  return shortest;
}

Json ToJson(const Message& message, int levels) {
  Json json = ProtobufJson(message, /*with_defaults=*/true);
  if (!json.is_object()) return json;  // A Timestamp is a string.
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message.GetDescriptor()->field(i);
    Json& value = json[field.name()];
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field.is_repeated() && !value.is_null()) {
      const Message& nested = message.GetReflection()->GetMessage(message, &field);
      value = levels > 1 ? ToJson(nested, levels - 1) : ProtobufJson(nested, /*with_defaults=*/false);
    } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_INT64) {  // Strings in protobuf's JSON.
      ForEach(&value, [](Json* number) {
        if (number->is_string()) *number = std::stoll(number->get<std::string>());
      });
    } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
      ForEach(&value, [](Json* word) {
        if (!word->is_string()) return;
        absl::string_view type = word->get_ref<const std::string&>();
        if (absl::ConsumePrefix(&type, "DATA_TYPE_")) *word = absl::AsciiStrToLower(type);
      });
    }
  }
  return json;
}

Rows ToRows(const Json& json) {
  Rows rows;
  for (const auto& [name, value] : json.items()) {
    if (value.is_object()) {
      for (auto& row : ToRows(value)) rows.push_back(std::move(row));
    } else {
      rows.emplace_back(absl::StrReplaceAll(name, {{"_", " "}}), CellText(name, value));
    }
  }
  return rows;
}

std::string FormatRows(const Rows& rows) {
  std::size_t width = 0;
  for (const auto& row : rows) width = std::max(width, row.first.size());
  std::string out;
  for (const auto& [name, value] : rows)
    absl::StrAppendFormat(&out, "%-*s  %s\n", static_cast<int>(width), name, value);
  return out;
}

std::string FormatBytes(std::int64_t bytes) {
  if (bytes < 1024) return absl::StrCat(bytes, " bytes");
  double size = static_cast<double>(bytes);
  std::size_t unit = 0;
  constexpr const char* kUnits[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  for (; size >= 1024 && unit + 1 < std::size(kUnits); ++unit) size /= 1024;
  return absl::StrFormat("%.4g %s", size, kUnits[unit]);
}

std::string JoinStrings(const Json& array) {
  return absl::StrJoin(array, ", ", [](std::string* out, const Json& value) {
    out->append(value.is_string() ? value.get<std::string>() : value.dump());
  });
}

std::string FormatLine(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

void Print(const std::string& format, const Json& json, const std::string& table) {
  if (format == "json") {
    std::cout << json.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
  } else {
    std::cout << table;
  }
  std::cout.flush();
}

}  // namespace attend::client
