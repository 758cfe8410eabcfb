#include "server/wire/option_fields.h"

#include <google/protobuf/descriptor.h>

#include <array>
#include <bit>
#include <cstring>
#include <string>
#include <type_traits>
#include <variant>

namespace attend::server {
namespace {

using google::protobuf::FieldDescriptor;
using Kind = OptionField::Kind;

const FieldDescriptor* FindField(const char* field) {
  return v1::AttentionOptions::descriptor()->FindFieldByName(std::strchr(field, '.') + 1);
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

Table MakeTable() {
  Table table;
  AddFields(Kind::kScalar, kScalarOptions, table);
  AddFields(Kind::kPerHead, kPerHeadOptions, table);
  AddFields(Kind::kLengths, kLengthsOptions, table);
  return table;
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
