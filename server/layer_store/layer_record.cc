#include "server/layer_store/layer_record.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "attend/storage/v1/layer_record.pb.h"
#include "core/base/error.h"

namespace attend::server {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// The first field, at any depth, that the message's type does not have, as `LayerConfig field 11`; empty when there is
// none.
std::string UnknownField(const Message& message) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const google::protobuf::UnknownFieldSet& unknown = reflection.GetUnknownFields(message);
  if (!unknown.empty()) return absl::StrCat(message.GetDescriptor()->name(), " field ", unknown.field(0).number());
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* const field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    const int size = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < size; ++i) {
      const Message& part = field->is_repeated() ? reflection.GetRepeatedMessage(message, field, i)
                                                 : reflection.GetMessage(message, field);
      if (std::string found = UnknownField(part); !found.empty()) return found;
    }
  }
  return "";
}

// Reads `from` as a message of the other package. Returns UnknownField of what was read.
std::string Reread(const Message& from, Message& to) {
  if (!to.ParseFromString(from.SerializeAsString())) return from.GetDescriptor()->name();
  return UnknownField(to);
}

}  // namespace

absl::StatusOr<std::string> SerializeRecord(const LayerRecord& record) {
  storage::v1::LayerRecord stored;
  if (const std::string unknown = Reread(record.header, *stored.mutable_header()); !unknown.empty()) {
    return InvalidField("header", absl::StrCat("the header has a field that this server cannot store (", unknown,
                                               "); leave it out, or use a newer server"));
  }
  stored.set_create_time_ms(record.create_time_ms);
  if (record.tenant != kSharedTenant) stored.set_tenant(record.tenant);
  return stored.SerializeAsString();
}

absl::StatusOr<LayerRecord> ParseRecord(std::string_view bytes) {
  storage::v1::LayerRecord stored;
  if (!stored.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::DataLossError("its record cannot be read");
  }
  LayerRecord record;
  std::string unknown = UnknownField(stored);
  if (unknown.empty()) unknown = Reread(stored.header(), record.header);
  if (!unknown.empty()) {
    return absl::DataLossError(absl::StrCat("its record has a field that this version of attend-server does not know (",
                                            unknown, "); a newer version wrote it"));
  }
  record.create_time_ms = stored.create_time_ms();
  if (stored.tenant().empty()) return record;
  if (!CheckTenantName(stored.tenant()).ok()) return absl::DataLossError("its record names a tenant that is none");
  record.tenant = stored.tenant();
  return record;
}

}  // namespace attend::server
