#include "server/wire/option_fields.h"

#include <google/protobuf/descriptor.h>

#include <array>
#include <bit>
#include <cstring>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/error.h"

namespace attend::server {
namespace {

using google::protobuf::FieldDescriptor;
using Kind = OptionField::Kind;

// The core's modes have the protocol's numbers.
static_assert(static_cast<int>(CausalMode::kBottomRight) == v1::CAUSAL_MODE_BOTTOM_RIGHT);
static_assert(static_cast<int>(CausalMode::kTopLeft) == v1::CAUSAL_MODE_TOP_LEFT);
static_assert(static_cast<int>(CausalMode::kNone) == v1::CAUSAL_MODE_NONE);
static_assert(static_cast<int>(Precision::kExact) == v1::PRECISION_EXACT);
static_assert(static_cast<int>(Precision::kFast) == v1::PRECISION_FAST);

const char* NameOf(const char* field) { return std::strchr(field, '.') + 1; }

const FieldDescriptor* FindField(const char* field) {
  return v1::AttentionOptions::descriptor()->FindFieldByName(NameOf(field));
}

WireType TypeOnTheWire(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_FLOAT: return WireType::kFixed32;
    case FieldDescriptor::CPPTYPE_DOUBLE: return WireType::kFixed64;
    case FieldDescriptor::CPPTYPE_MESSAGE: return WireType::kLengthDelimited;
    default: return WireType::kVarint;
  }
}

// By field number.
using Table = std::array<OptionField, 64>;

template <typename Options>
void AddFields(Kind kind, const Options& options, Table& table) {
  std::uint8_t index = 0;
  for (const auto& option : options) {
    const FieldDescriptor* const field = FindField(option.field);
    table.at(static_cast<std::size_t>(field->number())) = {kind, index++, TypeOnTheWire(*field)};
  }
}

void AddFloatFields(Table& table) {
  std::uint8_t next = 0;
  for (const ScalarOption& option : kScalarOptions) {
    const std::uint8_t index = next++;
    const std::string name = absl::StrCat("float_", NameOf(option.field));
    const FieldDescriptor* const field = v1::AttentionOptions::descriptor()->FindFieldByName(name);
    if (field == nullptr) continue;
    table.at(static_cast<std::size_t>(field->number())) = {Kind::kFloatScalar, index, TypeOnTheWire(*field)};
  }
}

Table MakeTable() {
  Table table;
  AddFields(Kind::kScalar, kScalarOptions, table);
  AddFloatFields(table);
  AddFields(Kind::kEnum, kEnumOptions, table);
  AddFields(Kind::kPerHead, kPerHeadOptions, table);
  AddFields(Kind::kLengths, kLengthsOptions, table);
  return table;
}

absl::Status UnknownMode(const FieldDescriptor& field, std::int32_t number, std::string_view owner) {
  std::vector<std::string> known;
  for (int i = 1; i < field.enum_type()->value_count(); ++i) {
    known.push_back(
        absl::StrCat(field.enum_type()->value(i)->name(), " (", field.enum_type()->value(i)->number(), ")"));
  }
  const std::string path = absl::StrCat(std::string(owner), "options.", field.name());
  return InvalidField(path, absl::StrCat(path, " is ", number, ", which is not a known ", field.enum_type()->name(),
                                         "; it must be ", absl::StrJoin(known, ", "), ", or absent"));
}

double ToDouble(const WireField& field) {
  if (field.type == WireType::kFixed64) return std::bit_cast<double>(field.value);
  return std::bit_cast<float>(static_cast<std::uint32_t>(field.value));
}

}  // namespace

OptionField FindOptionField(std::uint32_t number) {
  static const Table table = MakeTable();
  return number < table.size() ? table[number] : OptionField();
}

bool IsLayerOption(std::uint32_t number) {
  const OptionField option = FindOptionField(number);
  switch (option.kind) {
    case Kind::kScalar: return !kScalarOptions[option.index].request_only;
    case Kind::kFloatScalar:
    case Kind::kEnum:
    case Kind::kPerHead: return true;
    case Kind::kLengths:
    case Kind::kOther: break;
  }
  return false;
}

std::uint32_t OptionFieldNumber(const char* field) { return static_cast<std::uint32_t>(FindField(field)->number()); }

void SetScalarOption(std::size_t index, const WireField& field, AttentionOptions& options) {
  std::visit(
      [&](auto member) {
        if constexpr (std::is_same_v<decltype(options.*member), std::optional<double>&>) {
          options.*member = ToDouble(field);
        } else {
          options.*member = static_cast<std::int64_t>(field.value);
        }
      },
      kScalarOptions[index].member);
}

absl::Status FloatDiffers(std::string_view field, double value, std::string_view old, float old_value) {
  return InvalidField(field, absl::StrCat(std::string(field), " is ", value, ", but ", std::string(old), " is ",
                                          old_value, "; they must be the same number, the latter in float32: leave ",
                                          std::string(old), " out, which clients of version 0.1 send"));
}

absl::Status MergeFloatScalars(const FloatScalars& floats, AttentionOptions& options) {
  for (std::size_t i = 0; i < floats.size(); ++i) {
    const auto* const member = std::get_if<std::optional<double> AttentionOptions::*>(&kScalarOptions[i].member);
    if (!floats[i] || member == nullptr) continue;
    std::optional<double>& value = options.**member;
    if (!value) {
      value = *floats[i];
    } else if (static_cast<float>(*value) != *floats[i]) {
      const char* const field = kScalarOptions[i].field;
      return FloatDiffers(field, *value, absl::StrCat("options.float_", NameOf(field)), *floats[i]);
    }
  }
  return absl::OkStatus();
}

absl::Status SetEnumOptions(const EnumNumbers& numbers, std::string_view owner, AttentionOptions& options) {
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    if (numbers[i] == 0) continue;
    const FieldDescriptor& field = *FindField(kEnumOptions[i].field);
    if (field.enum_type()->FindValueByNumber(numbers[i]) == nullptr) return UnknownMode(field, numbers[i], owner);
    std::visit(
        [&](auto member) {
          using Mode = typename std::remove_reference_t<decltype(options.*member)>::value_type;
          options.*member = static_cast<Mode>(numbers[i]);
        },
        kEnumOptions[i].member);
  }
  return absl::OkStatus();
}

absl::Status SetEnumOptions(const v1::AttentionOptions& message, std::string_view owner, AttentionOptions& options) {
  EnumNumbers numbers;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = message.GetReflection()->GetEnumValue(message, FindField(kEnumOptions[i].field));
  }
  return SetEnumOptions(numbers, owner, options);
}

void SetScalarOptions(const v1::AttentionOptions& message, AttentionOptions& options) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  for (const ScalarOption& option : kScalarOptions) {
    const FieldDescriptor* const field = FindField(option.field);
    if (!reflection.HasField(message, field)) continue;
    std::visit(
        [&](auto member) {
          if constexpr (std::is_same_v<decltype(options.*member), std::optional<std::int64_t>&>) {
            options.*member = reflection.GetInt64(message, field);
          } else {
            options.*member = field->cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE
                                  ? reflection.GetDouble(message, field)
                                  : static_cast<double>(reflection.GetFloat(message, field));
          }
        },
        option.member);
  }
}

const v1::Tensor* PerHeadTensor(const v1::AttentionOptions& message, std::size_t index) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const FieldDescriptor* const field = FindField(kPerHeadOptions[index].field);
  if (!reflection.HasField(message, field)) return nullptr;
  return static_cast<const v1::Tensor*>(&reflection.GetMessage(message, field));
}

void ClearPerHeadTensors(v1::AttentionOptions& message) {
  for (const PerHeadOption& option : kPerHeadOptions)
    message.GetReflection()->ClearField(&message, FindField(option.field));
}

}  // namespace attend::server
