#include "client/cli/requests/message_flags.h"

#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <CLI/Validators.hpp>
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "client/cli/requests/tensor_source.h"
#include "client/io/stream.h"

namespace attend::client {
namespace {

using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

bool IsTensor(const FieldDescriptor& field) {
  return field.type() == FieldDescriptor::TYPE_MESSAGE && field.message_type() == v1::Tensor::descriptor();
}

// Whether a flag can set the field.
bool HasFlag(const FieldDescriptor& field) {
  if (field.options().deprecated()) return false;
  if (field.is_repeated()) return field.type() == FieldDescriptor::TYPE_INT64;
  return field.type() != FieldDescriptor::TYPE_MESSAGE || IsTensor(field);
}

// The words of an enumeration, without that for "unspecified".
std::vector<std::string> EnumWords(const EnumDescriptor& type) {
  std::vector<std::string> words;
  for (int i = 1; i < type.value_count(); ++i) words.push_back(EnumWord(*type.value(i)));
  return words;
}

// The value whose word is `word`, one of EnumWords.
std::string NameOf(const EnumDescriptor& type, const std::string& word) {
  for (int i = 0; i < type.value_count(); ++i) {
    if (EnumWord(*type.value(i)) == word) return type.value(i)->name();
  }
  return "";
}

// The flag's own sentence says what is wrong.
class Quiet final : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int /*line*/, google::protobuf::io::ColumnNumber /*column*/, const std::string& /*message*/) override {}
};

const char* TypeName(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_DOUBLE:
    case FieldDescriptor::CPPTYPE_FLOAT: return "NUMBER";
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64: return field.is_repeated() ? "LIST|FILE" : "INTEGER";
    case FieldDescriptor::CPPTYPE_MESSAGE: return "FILE";
    default: return "TEXT";
  }
}

absl::StatusOr<Tensor> LoadTensorFor(const FieldDescriptor& field, const std::string& text, bool is_double) {
  if (absl::EndsWith(field.name(), "mask")) return LoadMask(text);
  return field.name() == "bias" ? LoadFloats(text, is_double) : LoadFloatList(text, is_double);
}

absl::Status SetTensor(const FieldDescriptor& field, const std::string& text, bool is_double, Message* message) {
  absl::StatusOr<Tensor> tensor = LoadTensorFor(field, text, is_double);
  if (!tensor.ok()) return tensor.status();
  return (*std::move(tensor))
      .MoveTo(static_cast<v1::Tensor*>(message->GetReflection()->MutableMessage(message, &field)));
}

absl::Status SetList(const FieldDescriptor& field, const std::string& text, Message* message) {
  const absl::StatusOr<std::vector<std::int64_t>> list = LoadIntegerList(text);
  if (!list.ok()) return list.status();
  message->GetReflection()->ClearField(message, &field);  // Of an earlier request that it was filled for.
  for (const std::int64_t value : *list) message->GetReflection()->AddInt64(message, &field, value);
  return absl::OkStatus();
}

}  // namespace

std::string EnumWord(const EnumValueDescriptor& value) {
  std::string prefix;
  for (const char letter : value.type()->name()) {
    if (absl::ascii_isupper(static_cast<unsigned char>(letter)) && !prefix.empty()) prefix += '_';
    prefix += absl::ascii_toupper(static_cast<unsigned char>(letter));
  }
  const std::size_t begin = absl::StartsWith(value.name(), prefix + "_") ? prefix.size() + 1 : 0;
  return absl::AsciiStrToLower(value.name().substr(begin));
}

CLI::Option* MessageFlags::DeclareOne(CLI::App* command, const FieldDescriptor& field, const FlagInfo& info) {
  const std::string by_name = absl::StrCat("--", absl::StrReplaceAll(field.name(), {{"_", "-"}}));
  const std::string by_protocol = absl::StrCat("See ", field.full_name(), " in the protocol");
  const std::string help = *info.help == '\0' ? by_protocol : info.help;
  Entry& entry = entries_.emplace_back(Entry{&field, info, *info.flag == '\0' ? by_name : info.flag, "", nullptr});
  if (*info.enum_value != '\0' || field.cpp_type() == FieldDescriptor::CPPTYPE_BOOL) {
    return entry.option = command->add_flag(entry.flag, help);
  }
  entry.option = command->add_option(entry.flag, entry.text, help)->type_name(TypeName(field));
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM)
    entry.option->check(CLI::IsMember(EnumWords(*field.enum_type())));
  return entry.option;
}

void MessageFlags::Declare(CLI::App* command, const google::protobuf::Descriptor& descriptor,
                           absl::Span<const FlagInfo> table, const std::set<std::string>& without) {
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    if (!HasFlag(field) || without.count(field.name()) > 0) continue;
    std::vector<CLI::Option*> options;
    for (const FlagInfo& info : table) {
      if (info.field != field.name()) continue;
      CLI::Option* const option = DeclareOne(command, field, info);
      for (CLI::Option* other : options) option->excludes(other);
      options.push_back(option);
    }
    if (options.empty()) DeclareOne(command, field, {field.name().c_str()});
  }
}

std::string MessageFlags::FirstGiven() const {
  for (const Entry& entry : entries_) {
    if (entry.option->count() > 0) return entry.flag;
  }
  return "";
}

bool MessageFlags::Given(const std::string& field) const {
  return std::any_of(entries_.begin(), entries_.end(), [&field](const Entry& entry) {
    return entry.field->name() == field && entry.option->count() > 0;
  });
}

absl::Status MessageFlags::Set(const Entry& entry, bool is_double, Message* message) {
  const FieldDescriptor& field = *entry.field;
  if (IsTensor(field)) return Annotate(entry.flag, SetTensor(field, entry.text, is_double, message));
  if (field.is_repeated()) return Annotate(entry.flag, SetList(field, entry.text, message));
  const auto expected = [&entry](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat(entry.flag, " ", entry.text, ": expected ", what));
  };
  std::string value = entry.text;  // As protobuf's text format has it.
  std::int64_t integer = 0;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING: value = absl::StrCat("\"", absl::CEscape(value), "\""); break;
    case FieldDescriptor::CPPTYPE_BOOL: value = "true"; break;
    case FieldDescriptor::CPPTYPE_ENUM:
      value = *entry.info.enum_value == '\0' ? NameOf(*field.enum_type(), value) : entry.info.enum_value;
      break;
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64:
      if (!absl::SimpleAtoi(value, &integer)) return expected("an integer");
      if (entry.info.max > 0 && (integer < 1 || integer > entry.info.max)) {
        return expected(absl::StrCat("1 to ", entry.info.max));
      }
      value = absl::StrCat(integer);  // Text format would read 010 as 8.
      break;
    default: break;
  }
  Quiet quiet;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&quiet);
  return parser.ParseFieldValueFromString(value, &field, message)
             ? absl::OkStatus()
             : expected(integer == 0 ? "a number" : "a smaller integer");
}

absl::Status MessageFlags::Fill(bool is_double, Message* message) const {
  for (const Entry& entry : entries_) {
    if (entry.option->count() == 0) continue;
    if (absl::Status status = Set(entry, is_double, message); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace attend::client
