#include "client/cli/requests/request_line.h"

#include <google/protobuf/util/json_util.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cli/requests/message_flags.h"
#include "client/cli/requests/tensor_source.h"
#include "formats/command_line/nearest.h"

namespace attend::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using Json = nlohmann::json;

constexpr std::size_t kMostAxes = 8;

absl::Status Wrong(const std::string& field, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", why));
}

// The lengths of nested lists, by the first element of each.
std::vector<std::int64_t> ShapeOf(const Json& list) {
  std::vector<std::int64_t> shape;
  const Json* level = &list;
  while (level->is_array() && shape.size() < kMostAxes) {
    shape.push_back(static_cast<std::int64_t>(level->size()));
    if (level->empty()) break;
    level = &level->front();
  }
  return shape;
}

// A number, or the string that stands for one that JSON does not have.
std::optional<float> NumberOf(const Json& value) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (value.is_number()) return value.get<float>();
  if (value == "NaN") return std::numeric_limits<float>::quiet_NaN();
  if (value == "Infinity") return kInfinity;
  return value == "-Infinity" ? std::make_optional(-kInfinity) : std::nullopt;
}

// Appends the elements of `list`, which has the axes of `shape` from `axis` on.
absl::Status Flatten(const Json& list, const std::vector<std::int64_t>& shape, std::size_t axis, bool is_bool,
                     std::string* bytes) {
  if (axis < shape.size()) {
    if (!list.is_array() || static_cast<std::int64_t>(list.size()) != shape[axis]) {
      return absl::InvalidArgumentError("its lists are of different lengths");
    }
    for (const Json& element : list) {
      if (absl::Status status = Flatten(element, shape, axis + 1, is_bool, bytes); !status.ok()) return status;
    }
    return absl::OkStatus();
  }
  const std::optional<float> number = is_bool ? std::nullopt : NumberOf(list);
  if (is_bool ? !list.is_boolean() : !number.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("'", list.dump(-1, ' ', false, Json::error_handler_t::replace),
                                                   "' is not a ", is_bool ? "boolean" : "number",
                                                   " as the others are"));
  }
  if (number.has_value() && std::isinf(*number) && list.is_number()) {
    const auto index = static_cast<std::int64_t>(bytes->size() / sizeof *number);
    return absl::InvalidArgumentError(
        absl::StrCat(ElementName(index, shape), ": ", list.dump(), " is beyond the range of float32"));
  }
  if (is_bool) {
    bytes->push_back(list.get<bool>() ? '\1' : '\0');
  } else {
    bytes->append(reinterpret_cast<const char*>(&*number), sizeof *number);
  }
  return absl::OkStatus();
}

absl::StatusOr<Tensor> TensorOf(const Json& list) {
  std::vector<std::int64_t> shape = ShapeOf(list);
  const Json* first = &list;
  while (first->is_array() && !first->empty()) first = &first->front();
  const bool is_bool = first->is_boolean();
  std::string bytes;
  if (absl::Status status = Flatten(list, shape, 0, is_bool, &bytes); !status.ok()) return status;
  return Tensor::Create(is_bool ? ElementType::kBool : ElementType::kFloat32, std::move(shape), std::move(bytes));
}

absl::Status SetTensor(const FieldDescriptor& field, const Json& value, bool from_stdin, Message* message) {
  if (from_stdin && value == "-") {
    return absl::InvalidArgumentError("- is standard input, where the requests come from; name a file");
  }
  absl::StatusOr<Tensor> tensor = value.is_array()                       ? TensorOf(value)
                                  : absl::EndsWith(field.name(), "mask") ? LoadMask(value.get<std::string>())
                                                                         : LoadFloats(value.get<std::string>(), true);
  if (!tensor.ok()) return tensor.status();
  return (*std::move(tensor))
      .MoveTo(static_cast<v1::Tensor*>(message->GetReflection()->MutableMessage(message, &field)));
}

// The word of an enumeration as protobuf's JSON has it; what is no word of it stays.
Json FullName(const FieldDescriptor& field, const Json& value) {
  if (field.cpp_type() != FieldDescriptor::CPPTYPE_ENUM || !value.is_string()) return value;
  for (int i = 0; i < field.enum_type()->value_count(); ++i) {
    const auto& each = *field.enum_type()->value(i);
    if (EnumWord(each) == value.get<std::string>()) return each.name();
  }
  return value;
}

// Everything but lists and files of tensors is protobuf's own JSON.
absl::Status SetOther(const FieldDescriptor& field, Json value, Message* message) {
  if (value.is_array()) {
    for (Json& element : value) element = FullName(field, element);
  } else {
    value = FullName(field, value);
  }
  const std::string text = Json({{field.name(), value}}).dump(-1, ' ', false, Json::error_handler_t::replace);
  const std::unique_ptr<Message> part(message->New());
  const auto parsed = google::protobuf::util::JsonStringToMessage(text, part.get());
  if (!parsed.ok()) return absl::InvalidArgumentError(std::string(parsed.message()));
  message->MergeFrom(*part);
  return absl::OkStatus();
}

absl::Status UnknownField(const Message& message, const std::string& prefix, const std::string& name) {
  const int fields = message.GetDescriptor()->field_count();
  std::vector<std::string> known;
  known.reserve(static_cast<std::size_t>(fields));
  for (int i = 0; i < fields; ++i) known.push_back(message.GetDescriptor()->field(i)->name());
  return Wrong(prefix + name, absl::StrCat("there is no such field", formats::DidYouMean(name, known)));
}

absl::Status Fill(const Json& object, const std::string& prefix, bool from_stdin, Message* message) {
  for (const auto& [name, value] : object.items()) {
    if (prefix.empty() && name == "id") continue;
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(name);
    if (field == nullptr) return UnknownField(*message, prefix, name);
    // protobuf's JSON would take it for a field that is not there, and compute without the layer.
    if (value.is_string() && value.get_ref<const std::string&>().empty()) {
      return Wrong(prefix + name, "is an empty text; give a value, or leave the field out");
    }
    // The same of a list of lengths.
    if (field->type() == FieldDescriptor::TYPE_INT64 && value.is_array() && value.empty()) {
      return Wrong(prefix + name, "is an empty list; give a value, or leave the field out");
    }
    const bool is_message = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field->is_repeated();
    const bool is_tensor = is_message && field->message_type() == v1::Tensor::descriptor();
    absl::Status status;
    if (is_tensor && (value.is_array() || value.is_string())) {
      status = SetTensor(*field, value, from_stdin, message);
    } else if (is_message && !is_tensor && value.is_object()) {
      status = Fill(value, absl::StrCat(prefix, name, "."), from_stdin,
                    message->GetReflection()->MutableMessage(message, field));
      if (!status.ok()) return status;
    } else {
      status = SetOther(*field, value, message);
    }
    if (!status.ok()) return Wrong(prefix + name, std::string(status.message()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ComputationRequest> ParseRequestLine(const Json& line, bool from_stdin) {
  ComputationRequest request = v1::AttendRequest();
  if (line.contains("query")) request = v1::ScaledDotProductAttentionRequest();
  absl::Status status = std::visit([&](auto& message) { return Fill(line, "", from_stdin, &message); }, request);
  if (!status.ok()) return status;
  return request;
}

}  // namespace attend::client
