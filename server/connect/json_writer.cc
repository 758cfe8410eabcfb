#include "server/connect/json_writer.h"

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>
#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "server/connect/json_values.h"

namespace attend::server {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// How many values are written at a time, and left for later when there are more: tens of kilobytes of text.
constexpr std::size_t kNumbersAtATime = 4096;
constexpr std::size_t kBytesAtATime = std::size_t{48} << 10;  // A multiple of three: base64 goes on.

bool AreNumbers(const FieldDescriptor& field) {
  return field.is_repeated() &&
         (field.cpp_type() == FieldDescriptor::CPPTYPE_FLOAT || field.cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE);
}

}  // namespace

// Where a Writer leaves what is to be written later.
class JsonPieces {
 public:
  explicit JsonPieces(JsonText& text) : text_(text) {}

  std::size_t size() const { return text_.size_; }
  // `out`: the text until here, which is taken. The values are `size` characters.
  void Add(std::string& out, const Message* message, const FieldDescriptor* field, std::size_t count,
           std::size_t size) {
    text_.size_ += out.size() + size;
    text_.pieces_.push_back({std::exchange(out, {}), message, field, count});
  }

 private:
  JsonText& text_;
};

namespace {

class Writer {
 public:
  // `later`: null when everything is written now.
  Writer(std::size_t max_bytes, std::string& out, JsonPieces* later = nullptr)
      : max_bytes_(max_bytes), out_(out), later_(later) {}

  bool Append(const Message& message);

 private:
  bool AppendNumbersLater(const Message& message, const FieldDescriptor& field, std::size_t count);
  bool AppendBytesLater(const Message& message, const FieldDescriptor& field, std::size_t count);
  bool AppendField(const Message& message, const FieldDescriptor& field);
  bool AppendMap(const Message& message, const FieldDescriptor& field);
  // `index`: -1 for a field that is not repeated.
  bool AppendValue(const Message& message, const FieldDescriptor& field, int index);
  bool fits(std::size_t more = 0) const {
    return (later_ == nullptr ? 0 : later_->size()) + out_.size() + more <= max_bytes_;
  }

  const std::size_t max_bytes_;
  std::string& out_;
  JsonPieces* const later_;
};

bool Writer::AppendNumbersLater(const Message& message, const FieldDescriptor& field, std::size_t count) {
  std::size_t size = 0;
  std::string some;
  for (std::size_t begin = 0; begin < count; begin += kNumbersAtATime) {
    some.clear();
    AppendJsonNumbers(message, field, begin, std::min(begin + kNumbersAtATime, count), some);
    size += some.size();
    if (!fits(size)) return false;
  }
  later_->Add(out_, &message, &field, count, size);
  return true;
}

bool Writer::AppendBytesLater(const Message& message, const FieldDescriptor& field, std::size_t count) {
  const std::size_t size = (count + 2) / 3 * 4;
  out_ += '"';
  if (!fits(size)) return false;
  later_->Add(out_, &message, &field, count, size);
  out_ += '"';
  return true;
}

bool Writer::Append(const Message& message) {
  using google::protobuf::util::TimeUtil;
  if (const auto* time = dynamic_cast<const google::protobuf::Timestamp*>(&message)) {
    AppendJsonString(TimeUtil::ToString(*time), out_);
    return fits();
  }
  if (const auto* duration = dynamic_cast<const google::protobuf::Duration*>(&message)) {
    AppendJsonString(TimeUtil::ToString(*duration), out_);
    return fits();
  }
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  out_ += '{';
  const char* separator = "";
  for (const FieldDescriptor* field : fields) {
    out_ += separator;
    separator = ",";
    AppendJsonString(field->json_name(), out_);
    out_ += ':';
    if (!AppendField(message, *field)) return false;
  }
  out_ += '}';
  return fits();
}

bool Writer::AppendField(const Message& message, const FieldDescriptor& field) {
  if (!field.is_repeated()) return AppendValue(message, field, -1);
  if (field.is_map()) return AppendMap(message, field);
  const int size = message.GetReflection()->FieldSize(message, &field);
  out_ += '[';
  if (later_ != nullptr && AreNumbers(field) && static_cast<std::size_t>(size) > kNumbersAtATime) {
    if (!AppendNumbersLater(message, field, static_cast<std::size_t>(size))) return false;
  } else {
    for (int i = 0; i < size; ++i) {
      if (i > 0) out_ += ',';
      if (!AppendValue(message, field, i)) return false;
    }
  }
  out_ += ']';
  return fits();
}

bool Writer::AppendMap(const Message& message, const FieldDescriptor& field) {
  const Reflection& reflection = *message.GetReflection();
  const FieldDescriptor& key = *field.message_type()->map_key();
  const FieldDescriptor& value = *field.message_type()->map_value();
  out_ += '{';
  for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
    if (i > 0) out_ += ',';
    const Message& entry = reflection.GetRepeatedMessage(message, &field, i);
    AppendJsonString(entry.GetReflection()->GetString(entry, &key), out_);  // Our maps have no other keys.
    out_ += ':';
    if (!AppendValue(entry, value, -1)) return false;
  }
  out_ += '}';
  return fits();
}

bool Writer::AppendValue(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& reflection = *message.GetReflection();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    return Append(index < 0 ? reflection.GetMessage(message, &field)
                            : reflection.GetRepeatedMessage(message, &field, index));
  }
  if (later_ != nullptr && index < 0 && field.type() == FieldDescriptor::TYPE_BYTES) {
    std::string scratch;
    const std::size_t size = reflection.GetStringReference(message, &field, &scratch).size();
    if (size > kBytesAtATime) return AppendBytesLater(message, field, size);
  }
  AppendJsonScalar(message, field, index, out_);
  return fits();
}

}  // namespace

std::unique_ptr<JsonText> JsonText::Of(std::unique_ptr<const Message> message, std::size_t max_bytes) {
  std::unique_ptr<JsonText> text(new JsonText);
  JsonPieces pieces(*text);
  std::string last;
  if (!Writer(max_bytes, last, &pieces).Append(*message)) return nullptr;
  pieces.Add(last, nullptr, nullptr, 0, 0);
  text->message_ = std::move(message);
  return text;
}

std::string JsonText::Next() {
  for (; piece_ < pieces_.size(); ++piece_, done_ = 0) {
    Piece& piece = pieces_[piece_];
    if (!piece.text.empty()) return std::exchange(piece.text, {});
    if (done_ == piece.count) continue;
    std::string out;
    const std::size_t begin = done_;
    if (AreNumbers(*piece.field)) {
      done_ = std::min(begin + kNumbersAtATime, piece.count);
      AppendJsonNumbers(*piece.message, *piece.field, begin, done_, out);
    } else {
      done_ = std::min(begin + kBytesAtATime, piece.count);
      std::string scratch;
      const std::string& bytes =
          piece.message->GetReflection()->GetStringReference(*piece.message, piece.field, &scratch);
      out = absl::Base64Escape(absl::string_view(bytes).substr(begin, done_ - begin));
    }
    return out;
  }
  return {};
}

bool AppendJson(const Message& message, std::size_t max_bytes, std::string& out) {
  return Writer(max_bytes, out).Append(message);
}

}  // namespace attend::server
