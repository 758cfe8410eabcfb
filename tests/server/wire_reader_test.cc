// The wire reader agrees with protobuf's own parser about every message: those built by hand for each rule of the
// format, and thousands of random ones, in slices of every size.
#include "server/wire/wire_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "attend/v1/attention_service.pb.h"
#include "core/base/error.h"
#include "server/wire/option_fields.h"
#include "server/wire/request_reader.h"
#include "tests/support/reader_vs_protobuf.h"

namespace attend::server {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out += static_cast<char>(value);
}

// A longer encoding of the same number.
std::string PaddedVarint(std::uint64_t value, std::size_t bytes) {
  std::string out = Varint(value);
  while (out.size() < bytes) {
    out.back() = static_cast<char>(out.back() | 0x80);
    out += '\0';
  }
  return out;
}

std::string Tag(std::uint32_t number, std::uint32_t type) { return Varint(number << 3 | type); }
std::string Len(const std::string& payload) { return Varint(payload.size()) + payload; }
std::string Field(std::uint32_t number, const std::string& payload) { return Tag(number, 2) + Len(payload); }
std::string Repeat(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

struct Case {
  std::string name;
  std::string bytes;  // A ScaledDotProductAttentionRequest.
  bool accepted;
  std::string message;
};

void PrintTo(const Case& c, std::ostream* os) { *os << absl::CHexEscape(c.bytes); }

// What each byte of the format may be. Field 15 of the request is unknown.
std::vector<Case> FormatCases() {
  const std::string nested99 = Repeat(Tag(15, 3), 100) + Repeat(Tag(15, 4), 100);
  return {
      {"Empty", "", true},
      {"UnknownOfEveryType", Tag(15, 0) + "\x01" + Tag(15, 1) + "12345678" + Field(15, "x") + Tag(15, 5) + "1234",
       true},
      {"FieldZeroVarint", std::string("\x00\x01", 2), false, "field number 0"},
      {"FieldZeroBytes", std::string("\x02\x00", 2), false, "field number 0"},
      {"FieldZeroGroup", "\x03\x04", false, "field number 0"},
      {"WireTypeSix", Tag(15, 6), false, "wire type 6"},
      {"WireTypeSeven", Tag(15, 7) + "1234", false, "wire type 7"},
      {"TagOfFiveBytes", PaddedVarint(15 << 3, 5) + "\x01", true},
      {"TagOfSixBytes", PaddedVarint(15 << 3, 6) + "\x01", false, "more than 5 bytes"},
      {"TagBeyond32Bits", "\x88\x80\x80\x80\x70\x01", true},
      {"TagThatIsZeroIn32Bits", std::string("\x80\x80\x80\x80\x70\x01", 6), false, "field number 0"},
      {"LargestFieldNumber", Tag((1u << 29) - 1, 0) + "\x01", true},
      {"TagCutShort", "\x88", false, "ends within"},
      {"VarintOfTenBytes", Tag(15, 0) + PaddedVarint(1, 10), true},
      {"VarintOfElevenBytes", Tag(15, 0) + PaddedVarint(1, 11), false, "more than 10 bytes"},
      {"VarintBeyond64Bits", Tag(5, 0) + std::string(9, '\xFF') + "\x7F", true},
      {"VarintCutShort", Tag(15, 0) + "\x80", false, "ends within"},
      {"VarintMissing", Tag(15, 0), false, "ends within"},
      {"Fixed32CutShort", Tag(15, 5) + "123", false, "ends within"},
      {"Fixed64CutShort", Tag(15, 1) + "1234567", false, "ends within"},
      {"LengthBeyondTheEnd", Tag(15, 2) + "\x05" + "1234", false, "claims 5 bytes, but 4 are left"},
      {"LengthOfFiveBytes", Tag(15, 2) + PaddedVarint(1, 5) + "x", true},
      {"LengthOfSixBytes", Tag(15, 2) + PaddedVarint(1, 6) + "x", false, "more than 5 bytes"},
      {"LengthOf2GiB", Tag(15, 2) + "\xFF\xFF\xFF\xFF\x07", false, "claims 2147483647"},
      {"LengthOf64GiB", Tag(15, 2) + "\xFF\xFF\xFF\xFF\x7F", false, "claims"},
      {"EmptyGroup", Tag(15, 3) + Tag(15, 4), true},
      {"GroupOfKnownNumber", Tag(1, 3) + Tag(1, 4), true},
      {"GroupWithFields", Tag(15, 3) + Tag(1, 0) + "\x07" + Field(2, "abc") + Tag(7, 3) + Tag(7, 4) + Tag(15, 4), true},
      {"GroupNotClosed", Tag(15, 3), false, "ends within"},
      {"GroupClosedByAnother", Tag(15, 3) + Tag(14, 4), false, "not the open one"},
      {"GroupsCrossed", Tag(15, 3) + Tag(14, 3) + Tag(15, 4) + Tag(14, 4), false, "not the open one"},
      {"GroupEndsUnopened", Tag(15, 4), false, "without a beginning"},
      {"GroupClosedOutsideItsMessage", Field(1, Tag(15, 3)) + Tag(15, 4), false, "ends within"},
      {"GroupHoldsAWrongWireType", Tag(15, 3) + Tag(1, 7) + Tag(15, 4), false, "wire type 7"},
      {"GroupHoldsFieldZero", Tag(15, 3) + std::string("\0\1", 2) + Tag(15, 4), false, "field number 0"},
      {"Groups100Deep", nested99, true},
      {"Groups101Deep", Tag(15, 3) + nested99 + Tag(15, 4), false, "too deep"},
      {"Groups99DeepInAMessage", Field(1, Repeat(Tag(15, 3), 99) + Repeat(Tag(15, 4), 99)), true},
      {"Groups100DeepInAMessage", Field(1, nested99), false, "too deep"},
      {"TensorBeyondItsParent", Field(1, Tag(3, 2) + "\x05" + "abc") + Field(15, "abcdef"), false, "claims 5"},
      {"FloatsNotAMultipleOfFour", Field(1, Field(4, "12345")), false, "multiple of 4"},
      {"PackedVarintCutShort", Field(1, Field(2, "\x01\x80")) + "\x01", false, "ends within"},
      {"PackedVarintOfElevenBytes", Field(1, Field(2, PaddedVarint(1, 11))), false, "more than 10"},
      {"OutputsPackedAndNot", Tag(5, 0) + "\x01" + Field(5, "\x03\x03\x02") + Tag(5, 0) + "\x07", true},
      {"OutputsUnknown", Field(5, Varint(1) + Varint(~0ull) + Varint(99) + Varint(1ull << 32 | 2)), true},
      {"ShapeInChunks", Field(1, Field(2, "\x01\x02") + Tag(2, 0) + "\x03" + Field(2, "") + Field(2, Varint(~0ull))),
       true},
      {"ValuesInChunks", Field(1, Field(4, "abcdefgh") + Tag(4, 5) + "ijkl" + Field(4, "") + Field(4, "mnop")), true},
      {"LengthsInChunks", Field(4, Field(6, "\x01\x02") + Tag(6, 0) + "\x03") + Field(4, Field(6, "\x04")), true},
      {"LastDataWins", Field(1, Field(3, "first") + Field(3, "2nd")), true},
      {"LastDataWinsAlsoWhenEmpty", Field(1, Field(3, "first") + Field(3, "")), true},
      {"LastScalarWins", Field(4, Tag(2, 0) + "\x01" + Tag(2, 0) + "\x02" + Tag(3, 0) + "\x09" + Tag(3, 0) + "\x08"),
       true},
      {"TensorsMerge",
       Field(1, Field(2, "\x01") + Field(4, "abcd") + Field(3, "data")) +
           Field(1, Field(2, "\x02") + Field(4, "efgh") + Tag(1, 0) + "\x01"),
       true},
      {"OptionsMerge", Field(4, Field(7, Field(2, "\x01"))) + Field(4, Tag(3, 0) + "\x05" + Field(7, Field(2, "\x02"))),
       true},
      {"KnownFieldsOfOtherTypes",
       Tag(1, 0) + "\x01" + Tag(4, 5) + "1234" + Tag(5, 1) + "12345678" +
           Field(2, Field(1, "x") + Tag(2, 5) + "1234" + Tag(3, 0) + "\x01" + Tag(4, 1) + "12345678") +
           Field(4, Tag(1, 0) + "\x01" + Tag(3, 5) + "1234" + Tag(6, 1) + "12345678"),
       true},
      {"DoubleAndFloatScalars",
       Field(4, Tag(15, 1) + "abcdefgh" + Tag(1, 5) + "abcd" + Tag(16, 1) + "12345678" + Tag(5, 5) + "1234" +
                    Tag(18, 0) + "\x02"),
       true},
      {"DoubleAndFloatScalarsOfEachOthersTypes",
       Field(4, Tag(15, 5) + "abcd" + Tag(1, 1) + "abcdefgh" + Tag(16, 0) + "\x01" + Tag(5, 0) + "\x01"), true},
      {"LastDoubleWins", Field(4, Tag(15, 1) + "abcdefgh" + Tag(15, 1) + "12345678") + Field(4, Tag(1, 5) + "abcd"),
       true},
      {"KeyMask", Field(4, Field(17, Field(2, "\x02\x03") + Field(3, "abcdef") + Tag(1, 0) + "\x05")), true},
      {"LayoutUnknown", Tag(7, 0) + Varint(~0ull) + Tag(7, 0) + "\x63", true},
      {"RankOneHundred", Field(1, Field(2, std::string(100, '\x01'))), true},
  };
}

class WireFormat : public ::testing::TestWithParam<Case> {};

TEST_P(WireFormat, MeansWhatProtobufSays) {
  const std::string& bytes = GetParam().bytes;
  for (std::size_t slice_size = 0; slice_size <= std::min<std::size_t>(bytes.size(), 9); ++slice_size) {
    bool accepted = false;
    EXPECT_THAT(CompareSdpaRequest(bytes, slice_size, &accepted), IsEmpty()) << "slices of " << slice_size;
    EXPECT_EQ(accepted, GetParam().accepted);
  }
  const WireBytes wire(Sliced(bytes, 3));
  RawSdpaRequest request;
  const absl::Status status = ReadSdpaRequest(wire, request);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

const auto kCaseName = [](const auto& info) { return info.param.name; };
INSTANTIATE_TEST_SUITE_P(Cases, WireFormat, ::testing::ValuesIn(FormatCases()), kCaseName);

TEST(WireReader, ErrorsSayAtWhichByteAndWhy) {
  // The fourth field starts at byte 6, and within it the bad element at byte 8.
  const std::string bytes = Repeat(Tag(15, 0) + "\x01", 3) + Field(1, Tag(1, 7));
  const WireBytes wire(Sliced(bytes, 2));
  RawSdpaRequest request;
  const absl::Status status = ReadSdpaRequest(wire, request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorDetails(status).reason, "MALFORMED_REQUEST");
  EXPECT_THAT(GetErrorDetails(status).metadata, ::testing::ElementsAre(::testing::Pair("byte_position", "8")));
  EXPECT_THAT(std::string(status.message()), HasSubstr("at byte 8"));
}

TEST(WireBytes, CopiesAnyRangeOutOfAnySlices) {
  std::string bytes;
  for (int i = 0; i < 23; ++i) bytes += static_cast<char>('a' + i);
  for (std::size_t slice_size = 0; slice_size <= bytes.size(); ++slice_size) {
    const WireBytes wire(Sliced(bytes, slice_size));
    ASSERT_EQ(wire.size(), 23);
    for (std::int64_t begin = 0; begin <= 23; ++begin) {
      for (std::int64_t end = begin; end <= 23; ++end) {
        std::string copy(static_cast<std::size_t>(end - begin), '?');
        wire.Copy({begin, end}, copy.data());
        ASSERT_EQ(copy, bytes.substr(static_cast<std::size_t>(begin), copy.size()));
      }
    }
  }
}

TEST(WireBytes, ABufferWithoutContentsIsAnEmptyMessage) {
  EXPECT_EQ(WireBytes(grpc::ByteBuffer()).size(), 0);
  EXPECT_EQ(WireBytes(Sliced("", 0)).size(), 0);
}

// Random messages: well-formed ones of the right fields most of the time, then damaged half of the time.
class RandomMessages {
 public:
  explicit RandomMessages(std::uint32_t seed) : random_(seed) {}

  std::size_t Below(std::size_t bound) { return random_() % bound; }

  std::string Message(int depth) {
    std::string out;
    for (std::size_t i = Below(6); i > 0; --i) out += AnyField(depth);
    return out;
  }

  // Flips, cuts, inserts and repeats.
  std::string Damage(std::string bytes) {
    for (std::size_t i = 1 + Below(3); i > 0 && !bytes.empty(); --i) {
      const std::size_t at = Below(bytes.size());
      switch (Below(5)) {
        case 0: bytes[at] = static_cast<char>(random_()); break;
        case 1: bytes[at] = static_cast<char>(bytes[at] ^ (1 << Below(8))); break;
        case 2: bytes.erase(at, 1 + Below(4)); break;
        case 3: bytes.insert(at, 1, static_cast<char>(random_())); break;
        default: bytes.insert(at, bytes.substr(Below(bytes.size()), Below(20))); break;
      }
    }
    return bytes;
  }

 private:
  std::uint64_t AnyNumber() {
    const std::uint64_t wide = std::uint64_t{random_()} << 32 | random_();
    return wide >> Below(64);
  }

  std::string AnyVarint() {
    const std::uint64_t number = Below(4) == 0 ? AnyNumber() : Below(10);
    return Below(10) == 0 ? PaddedVarint(number, 1 + Below(10)) : Varint(number);
  }

  std::string AnyBytes(std::size_t size) {
    std::string out;
    while (out.size() < size) out += static_cast<char>(random_());
    return out;
  }

  std::string AnyPayload(int depth) {
    switch (Below(depth > 0 ? 6 : 3)) {
      case 0: return AnyBytes(Below(12));
      case 1: return AnyBytes(4 * Below(5));
      case 2: {
        std::string packed;
        for (std::size_t i = Below(10); i > 0; --i) packed += AnyVarint();
        return packed;
      }
      default: return Message(depth - 1);
    }
  }

  std::string AnyField(int depth) {
    const auto number = static_cast<std::uint32_t>(Below(50) == 0 ? AnyNumber() & 0x1FFFFFFF : 1 + Below(19));
    switch (Below(10)) {
      case 0:
      case 1: return Tag(number, 0) + AnyVarint();
      case 2: return Tag(number, 5) + AnyBytes(4);
      case 3: return Below(2) == 0 ? Tag(number, 1) + AnyBytes(8) : Tag(number, 5) + AnyBytes(4);
      case 4:
        return Below(3) == 0 ? Tag(number, 3) + (depth > 0 ? Message(depth - 1) : "") + Tag(number, 4)
                             : Tag(number, 0) + AnyVarint();
      default: return Field(number, AnyPayload(depth));
    }
  }

  std::mt19937 random_;
};

// The two verdicts, and every field when both accept.
TEST(WireReader, AgreesWithProtobufOnRandomMessages) {
  constexpr int kMessages = 20000;
  RandomMessages random(1);
  int accepted_count = 0;
  for (int i = 0; i < kMessages; ++i) {
    std::string bytes = random.Message(4);
    if (i % 2 == 0) bytes = random.Damage(bytes);
    const std::size_t slice_size = random.Below(12);
    bool accepted = false;
    ASSERT_THAT(CompareAttendRequest(bytes, slice_size, &accepted), IsEmpty())
        << "message " << i << ": " << absl::BytesToHexString(bytes);
    accepted_count += accepted;
    ASSERT_THAT(CompareSdpaRequest(bytes, slice_size, &accepted), IsEmpty())
        << "message " << i << ": " << absl::BytesToHexString(bytes);
  }
  EXPECT_GT(accepted_count, kMessages / 5) << "too few messages are well-formed for the comparison to mean anything";
  EXPECT_LT(accepted_count, kMessages * 4 / 5) << "too few messages are damaged";
}

// Prefixes of an honest message: every way of being cut short.
TEST(WireReader, AgreesWithProtobufOnEveryPrefixOfAnHonestMessage) {
  v1::AttendRequest request;
  for (v1::Tensor* tensor :
       {request.mutable_embeddings(), request.mutable_layer()->mutable_key_projection()->mutable_weight(),
        request.mutable_options()->mutable_mask()}) {
    tensor->set_data_type(v1::DATA_TYPE_FLOAT32);
    for (const std::int64_t axis : {2, 300, 1 << 20}) tensor->add_shape(axis);
    tensor->set_data("some bytes");
    for (const float value : {1.0f, 2.0f}) tensor->add_values(value);
  }
  request.mutable_layer()->set_num_heads(-1);
  request.mutable_options()->set_scale(0.1);
  request.mutable_options()->MergeFromString(Tag(5, 5) + "abcd");  // float_softcap.
  request.mutable_options()->set_precision(v1::PRECISION_FAST);
  request.set_layer_etag("0123abcd");
  request.add_position_offsets(300);
  request.add_position_offsets(-1);
  request.mutable_options()->set_sliding_window_left(-7);
  request.mutable_options()->add_valid_lengths(1 << 30);
  request.add_outputs(v1::OUTPUT_KIND_SCORES);
  const std::string bytes = request.SerializeAsString();
  for (std::size_t size = 0; size <= bytes.size(); ++size) {
    ASSERT_THAT(CompareAttendRequest(std::string_view(bytes).substr(0, size), 7), IsEmpty()) << "prefix of " << size;
  }
}

// Strings are looked at in pieces, so that a character may begin in one and end in the next.
TEST(WireReader, AgreesWithProtobufOnTextOfAnyLength) {
  const std::vector<std::string> characters = {
      "a",        "\xC3\xA9",     "\xE2\x82\xAC",     "\xF0\x9F\x98\x80",  // Of one to four bytes.
      "\x80",     "\xC3",         "\xE2\x82",         "\xF0\x9F\x98",      // Parts of one.
      "\xC0\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\x80\x80\x80\x80\x80", std::string(2, '\0')};
  int accepted_count = 0;
  for (const std::string& character : characters) {
    for (int before = 1018; before <= 1028; ++before) {
      for (const int after : {0, 1, 2000}) {
        const std::string text = Repeat("x", before) + character + Repeat("y", after);
        bool accepted = false;
        ASSERT_THAT(CompareAttendRequest(Field(v1::AttendRequest::kLayerNameFieldNumber, text), 700, &accepted),
                    IsEmpty())
            << absl::CHexEscape(character) << " behind " << before << " and before " << after;
        accepted_count += accepted;
      }
    }
  }
  EXPECT_EQ(accepted_count, 5 * 11 * 3);
}

template <typename Options>
void ExpectFields(const Options& options, OptionField::Kind kind) {
  std::size_t index = 0;
  for (const auto& option : options) {
    const auto* field = v1::AttentionOptions::descriptor()->FindFieldByName(std::string(option.field).substr(8));
    ASSERT_NE(field, nullptr) << option.field << " is no field of attend.v1.AttentionOptions";
    EXPECT_EQ(OptionFieldNumber(option.field), field->number());
    EXPECT_EQ(FindOptionField(static_cast<std::uint32_t>(field->number())).kind, kind) << option.field;
    EXPECT_EQ(FindOptionField(static_cast<std::uint32_t>(field->number())).index, index++) << option.field;
  }
}

TEST(OptionFields, ScalarsOfVersion01HaveAFloatField) {
  for (const auto& [number, index] : {std::pair{1u, 0u}, std::pair{5u, 3u}}) {
    EXPECT_EQ(FindOptionField(number).kind, OptionField::Kind::kFloatScalar);
    EXPECT_EQ(FindOptionField(number).index, index);
  }
}

TEST(OptionFields, EachLineOfTheCoresTablesIsAFieldOfTheMessage) {
  ExpectFields(kScalarOptions, OptionField::Kind::kScalar);
  ExpectFields(kEnumOptions, OptionField::Kind::kEnum);
  ExpectFields(kPerHeadOptions, OptionField::Kind::kPerHead);
  ExpectFields(kLengthsOptions, OptionField::Kind::kLengths);
  for (const std::uint32_t other : {std::uint32_t{v1::AttentionOptions::kMaskFieldNumber},
                                    std::uint32_t{v1::AttentionOptions::kAttentionWeightsFormFieldNumber}}) {
    EXPECT_EQ(FindOptionField(other).kind, OptionField::Kind::kOther);
  }
  for (const std::uint32_t unknown : {0u, 63u, 64u, 1u << 28}) {
    EXPECT_EQ(FindOptionField(unknown).kind, OptionField::Kind::kOther) << unknown;
  }
}

}  // namespace
}  // namespace attend::server
