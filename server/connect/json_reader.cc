#include "server/connect/json_reader.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/base/protocol.h"
#include "server/connect/json_cursor.h"
#include "server/connect/json_scalars.h"
#include "server/connect/wire_blocks.h"

namespace attend::server {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::OneofDescriptor;

constexpr int kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5;
constexpr std::size_t kMaxDepth = 32;
constexpr std::size_t kMostNameBytes = 64;

int WireTypeOf(const FieldDescriptor& field) {
  switch (field.type()) {
    case FieldDescriptor::TYPE_FLOAT: return kFixed32;
    case FieldDescriptor::TYPE_DOUBLE: return kFixed64;
    case FieldDescriptor::TYPE_STRING:
    case FieldDescriptor::TYPE_BYTES:
    case FieldDescriptor::TYPE_MESSAGE: return kLengthDelimited;
    default: return kVarint;
  }
}

// Whether a value of this kind can be read; sint, fixed and groups are not used.
bool IsSupported(const FieldDescriptor& field) {
  switch (field.type()) {
    case FieldDescriptor::TYPE_FLOAT:
    case FieldDescriptor::TYPE_DOUBLE:
    case FieldDescriptor::TYPE_INT32:
    case FieldDescriptor::TYPE_INT64:
    case FieldDescriptor::TYPE_UINT32:
    case FieldDescriptor::TYPE_UINT64:
    case FieldDescriptor::TYPE_BOOL:
    case FieldDescriptor::TYPE_ENUM:
    case FieldDescriptor::TYPE_STRING:
    case FieldDescriptor::TYPE_BYTES: return true;
    case FieldDescriptor::TYPE_MESSAGE:
      return !field.is_map() && field.message_type()->file()->package() != "google.protobuf";
    default: return false;
  }
}

const FieldDescriptor* FindField(const Descriptor& type, const std::string& name) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor* const field = type.field(i);
    if (field->json_name() == name || field->name() == name) return field;
  }
  return nullptr;
}

// The beginning of a name that a stranger wrote.
std::string Shown(const std::string& name) { return absl::CHexEscape(name.substr(0, kMostNameBytes)); }

// False when it is there already.
template <typename Element>
bool AddOnce(const Element& element, std::vector<Element>& elements) {
  if (std::find(elements.begin(), elements.end(), element) != elements.end()) return false;
  elements.push_back(element);
  return true;
}

class Reader {
 public:
  explicit Reader(grpc::ByteBuffer& json) : in_(json) {}

  absl::StatusOr<grpc::ByteBuffer> Read(const Descriptor& type) {
    if (Object(type) && (in_.PeekToken() == JsonCursor::kEnd || Fail("something follows the request"))) {
      return out_.Take();
    }
    return WithDetails(absl::InvalidArgumentError(error_),
                       {.reason = reason::kMalformedRequest, .field = field_, .metadata = {}});
  }

 private:
  struct Place {
    const FieldDescriptor* field;
    std::int64_t index;  // -1 outside of a list.
  };

  bool Fail(std::string_view why);
  void Tag(const FieldDescriptor& field, int wire_type) {
    out_.Varint(static_cast<std::uint64_t>(field.number()) << 3 | static_cast<unsigned>(wire_type));
  }
  bool Object(const Descriptor& type);
  // What an object has had: its fields, null ones too, and the oneofs of which one is set.
  struct Seen {
    std::vector<const FieldDescriptor*> fields;
    std::vector<const OneofDescriptor*> oneofs;
  };
  bool Member(const Descriptor& type, Seen& seen);
  bool Field(const FieldDescriptor& field);
  bool List(const FieldDescriptor& field);
  // Without its tag.
  bool Value(const FieldDescriptor& field);

  JsonCursor in_;
  WireBlocks out_;
  JsonScalars scalars_{in_, out_};
  std::string token_;
  std::vector<Place> path_;
  std::string error_;
  std::string field_;  // Where, in the names of proto/.
};

bool Reader::Fail(std::string_view why) {
  for (const Place& place : path_) {
    const std::string index = place.index >= 0 ? absl::StrCat("[", place.index, "]") : "";
    absl::StrAppend(&error_, error_.empty() ? "" : ".", place.field->json_name(), index);
    absl::StrAppend(&field_, field_.empty() ? "" : ".", place.field->name(), index);
  }
  absl::StrAppend(&error_, error_.empty() ? "" : ": ", std::string(why), " (at character ", in_.offset(), ")");
  return false;
}

bool Reader::Object(const Descriptor& type) {
  if (!in_.Take('{')) return Fail("an object is expected");
  if (path_.size() > kMaxDepth) return Fail("objects are nested too deeply");
  if (in_.Take('}')) return true;
  Seen seen;
  do {
    if (!Member(type, seen)) return false;
  } while (in_.Take(','));
  return in_.Take('}') || Fail("a comma or the end of the object is expected");
}

bool Reader::Member(const Descriptor& type, Seen& seen) {
  if (!in_.Take('"')) return Fail("the name of a field, in quotes, is expected");
  if (!in_.TakeString(token_)) return Fail("the name of a field is no string");
  const FieldDescriptor* const field = FindField(type, token_);
  if (field == nullptr) return Fail(absl::StrCat("there is no field '", Shown(token_), "'"));
  if (!in_.Take(':')) return Fail("a colon is expected");
  path_.push_back({field, -1});
  if (!AddOnce(field, seen.fields)) return Fail("the field comes twice, under the same name or its other one");
  if (in_.PeekToken() == 'n') {
    if (!in_.TakeWord("null")) return Fail("a value is expected");
  } else {
    const OneofDescriptor* const oneof = field->real_containing_oneof();
    if (oneof != nullptr && !AddOnce(oneof, seen.oneofs)) return Fail("only one of several may be set");
    if (!IsSupported(*field)) return Fail("this field cannot be set in JSON");
    if (!(field->is_repeated() ? List(*field) : Field(*field))) return false;
  }
  path_.pop_back();
  return true;
}

bool Reader::Field(const FieldDescriptor& field) {
  Tag(field, WireTypeOf(field));
  return Value(field);
}

bool Reader::List(const FieldDescriptor& field) {
  if (!in_.Take('[')) return Fail("a list is expected");
  if (in_.Take(']')) return true;
  const bool packed = field.is_packed();
  if (packed) Tag(field, kLengthDelimited);
  const std::size_t begin = packed ? out_.Begin() : 0;
  const std::size_t depth = path_.size();
  do {
    ++path_[depth - 1].index;
    if (!(packed ? Value(field) : Field(field))) return false;
  } while (in_.Take(','));
  if (!in_.Take(']')) return Fail("a comma or the end of the list is expected");
  if (packed) out_.End(begin);
  return true;
}

bool Reader::Value(const FieldDescriptor& field) {
  const std::size_t begin = WireTypeOf(field) == kLengthDelimited ? out_.Begin() : 0;
  if (field.type() == FieldDescriptor::TYPE_MESSAGE) {
    if (!Object(*field.message_type())) return false;
  } else if (const char* const wrong = scalars_.Read(field)) {
    return Fail(wrong);
  }
  if (begin > 0) out_.End(begin);
  return true;
}

}  // namespace

absl::StatusOr<grpc::ByteBuffer> ReadJson(grpc::ByteBuffer& json, const Descriptor& type) {
  return Reader(json).Read(type);
}

}  // namespace attend::server
