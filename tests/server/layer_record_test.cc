// Records of stored layers: attend.storage.v1 and attend.v1 agree field by field, and nothing is dropped between them.
#include "server/layer_store/layer_record.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "attend/storage/v1/layer_record.pb.h"
#include "server/layers/layer_config.h"

namespace attend::server {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using ::testing::HasSubstr;

void SetNumber(Message& message, const FieldDescriptor& field, int value) {
  const Reflection& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: return reflection.SetInt32(&message, &field, value);
    case FieldDescriptor::CPPTYPE_INT64: return reflection.SetInt64(&message, &field, value);
    case FieldDescriptor::CPPTYPE_FLOAT: return reflection.SetFloat(&message, &field, static_cast<float>(value) + 0.5F);
    case FieldDescriptor::CPPTYPE_DOUBLE: return reflection.SetDouble(&message, &field, value + 0.1);
    case FieldDescriptor::CPPTYPE_BOOL: return reflection.SetBool(&message, &field, true);
    case FieldDescriptor::CPPTYPE_ENUM: return reflection.SetEnumValue(&message, &field, 1);
    default: return reflection.SetString(&message, &field, "text " + std::to_string(value));
  }
}

void AddNumber(Message& message, const FieldDescriptor& field, int value) {
  const Reflection& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT64: return reflection.AddInt64(&message, &field, value);
    case FieldDescriptor::CPPTYPE_FLOAT: return reflection.AddFloat(&message, &field, static_cast<float>(value));
    case FieldDescriptor::CPPTYPE_DOUBLE: return reflection.AddDouble(&message, &field, value + 0.1);
    case FieldDescriptor::CPPTYPE_STRING: return reflection.AddString(&message, &field, "text");
    default: FAIL() << "a repeated field of another type: " << field.full_name();
  }
}

// Gives every field a value that is not its default, each its own.
void FillEveryField(Message& message) {
  const Descriptor& type = *message.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (field.is_repeated()) {
      AddNumber(message, field, i + 1);
    } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      FillEveryField(*message.GetReflection()->MutableMessage(&message, &field));
    } else {
      SetNumber(message, field, i + 1);
    }
  }
}

// Every option that a layer cannot have, as ReadLayerOptions says.
std::set<std::string> RequestOnlyOptions() {
  std::set<std::string> names;
  const Descriptor& type = *v1::AttentionOptions::descriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    v1::AttentionOptions options;
    const FieldDescriptor& field = *type.field(i);
    if (field.is_repeated()) {
      AddNumber(options, field, 1);
    } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      FillEveryField(*options.GetReflection()->MutableMessage(&options, &field));
    } else {
      SetNumber(options, field, 1);
    }
    const auto read = ReadLayerOptions(options, 1, /*is_double=*/true);
    if (!read.ok() && std::string(read.status().message()).find("is a request's") != std::string::npos) {
      names.insert(field.full_name());
    }
  }
  return names;
}

// What attend.v1 has and a record does not.
const std::set<std::string>& NotStored() {
  static const auto& names = *new std::set<std::string>([] {
    std::set<std::string> all = RequestOnlyOptions();
    all.insert("attend.v1.CreateLayerHeader.replace");
    return all;
  }());
  return names;
}

void ExpectSameValues(const EnumDescriptor& stored, const EnumDescriptor& api) {
  EXPECT_EQ(stored.name(), api.name());
  EXPECT_EQ(stored.value_count(), api.value_count()) << stored.full_name();
  for (int i = 0; i < api.value_count(); ++i) {
    const auto* const value = stored.FindValueByNumber(api.value(i)->number());
    ASSERT_NE(value, nullptr) << "attend.storage.v1 does not know " << api.value(i)->full_name();
    EXPECT_EQ(value->name(), api.value(i)->name());
  }
}

void ExpectSameFields(const Descriptor& stored, const Descriptor& api) {
  EXPECT_EQ(stored.name(), api.name());
  for (int i = 0; i < stored.field_count(); ++i) {
    EXPECT_NE(api.FindFieldByNumber(stored.field(i)->number()), nullptr) << stored.field(i)->full_name();
  }
  for (int i = 0; i < api.field_count(); ++i) {
    const FieldDescriptor& field = *api.field(i);
    const FieldDescriptor* const copy = stored.FindFieldByNumber(field.number());
    if (NotStored().contains(field.full_name())) {
      EXPECT_EQ(copy, nullptr) << field.full_name() << " belongs to a request and needs no copy";
      continue;
    }
    ASSERT_NE(copy, nullptr) << "attend.storage.v1 has no copy of " << field.full_name();
    EXPECT_EQ(copy->name(), field.name());
    EXPECT_EQ(copy->type(), field.type()) << field.full_name();
    EXPECT_EQ(copy->label(), field.label()) << field.full_name();
    EXPECT_EQ(copy->has_presence(), field.has_presence()) << field.full_name();
    if (field.type() == FieldDescriptor::TYPE_MESSAGE) ExpectSameFields(*copy->message_type(), *field.message_type());
    if (field.type() == FieldDescriptor::TYPE_ENUM) ExpectSameValues(*copy->enum_type(), *field.enum_type());
  }
}

v1::CreateLayerHeader FullHeader() {
  v1::CreateLayerHeader header;
  FillEveryField(header);
  header.clear_replace();
  v1::AttentionOptions& options = *header.mutable_config()->mutable_options();
  for (const std::string& name : RequestOnlyOptions()) {
    const auto& field = *options.GetDescriptor()->FindFieldByName(name.substr(name.rfind('.') + 1));
    options.GetReflection()->ClearField(&options, &field);
  }
  return header;
}

TEST(LayerRecordTest, EveryFieldIsThatOfTheApi) {
  ExpectSameFields(*storage::v1::CreateLayerHeader::descriptor(), *v1::CreateLayerHeader::descriptor());
}

TEST(LayerRecordTest, EveryFieldIsFoundAgain) {
  const LayerRecord record{.header = FullHeader(), .create_time_ms = 1'700'000'000'123};
  const absl::StatusOr<std::string> bytes = SerializeRecord(record);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  const absl::StatusOr<LayerRecord> read = ParseRecord(*bytes);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->header.SerializeAsString(), record.header.SerializeAsString());
  EXPECT_EQ(read->create_time_ms, record.create_time_ms);
  EXPECT_EQ(read->tenant, "shared");
}

TEST(LayerRecordTest, TheTenantIsFoundAgainAndTheSharedOneLeavesTheBytesAsTheyWere) {
  const absl::StatusOr<std::string> own = SerializeRecord({.header = FullHeader(), .tenant = "acme"});
  const absl::StatusOr<std::string> shared = SerializeRecord({.header = FullHeader(), .tenant = "shared"});
  ASSERT_TRUE(own.ok() && shared.ok());
  EXPECT_EQ(ParseRecord(*own)->tenant, "acme");
  EXPECT_EQ(*shared, *SerializeRecord({.header = FullHeader()}));
  storage::v1::LayerRecord bad;
  bad.ParseFromString(*own);
  bad.set_tenant("../acme");
  EXPECT_TRUE(absl::IsDataLoss(ParseRecord(bad.SerializeAsString()).status()));
}

TEST(LayerRecordTest, AFieldThatCannotBeStoredIsRefused) {
  for (const bool deep : {false, true}) {
    LayerRecord record{.header = FullHeader()};
    Message& message = deep ? static_cast<Message&>(*record.header.mutable_config()->mutable_options()->mutable_sinks())
                            : static_cast<Message&>(record.header);
    message.GetReflection()->MutableUnknownFields(&message)->AddVarint(999, 1);
    const absl::StatusOr<std::string> bytes = SerializeRecord(record);
    EXPECT_TRUE(absl::IsInvalidArgument(bytes.status())) << bytes.status();
    EXPECT_THAT(std::string(bytes.status().message()), HasSubstr(deep ? "Tensor field 999" : "Header field 999"));
  }
  LayerRecord record{.header = FullHeader()};
  record.header.mutable_config()->mutable_options()->mutable_valid_lengths()->Add(1);
  EXPECT_TRUE(absl::IsInvalidArgument(SerializeRecord(record).status())) << "an option that only requests have";
}

TEST(LayerRecordTest, ARecordOfANewerVersionIsRefused) {
  const absl::StatusOr<std::string> bytes = SerializeRecord({.header = FullHeader()});
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  for (const bool deep : {false, true}) {
    storage::v1::LayerRecord stored;
    ASSERT_TRUE(stored.ParseFromString(*bytes));
    Message& message =
        deep ? static_cast<Message&>(*stored.mutable_header()->mutable_config()->mutable_rotary_embedding())
             : static_cast<Message&>(stored);
    message.GetReflection()->MutableUnknownFields(&message)->AddFixed64(77, 1);
    const absl::StatusOr<LayerRecord> read = ParseRecord(stored.SerializeAsString());
    EXPECT_TRUE(absl::IsDataLoss(read.status())) << read.status();
    EXPECT_THAT(std::string(read.status().message()),
                HasSubstr(deep ? "RotaryEmbedding field 77" : "LayerRecord field 77"));
  }
  EXPECT_TRUE(absl::IsDataLoss(ParseRecord("\x0a\xff").status())) << "no record at all";
}

}  // namespace
}  // namespace attend::server
