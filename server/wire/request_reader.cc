#include "server/wire/request_reader.h"

#include <google/protobuf/stubs/common.h>

#include <array>
#include <bit>
#include <tuple>

#include "attend/v1/attention_service.pb.h"
#include "attend/v1/tensor.pb.h"
#include "server/wire/option_fields.h"

namespace attend::server {
namespace {

bool IsVarint(const WireField& field) { return field.type == WireType::kVarint; }
bool IsFixed32(const WireField& field) { return field.type == WireType::kFixed32; }
bool IsLengthDelimited(const WireField& field) { return field.type == WireType::kLengthDelimited; }

// Numbers as protobuf truncates them.
std::int32_t Int32(const WireField& field) { return static_cast<std::int32_t>(field.value); }
std::int64_t Int64(const WireField& field) { return static_cast<std::int64_t>(field.value); }

// Reads one field into what holds it, as protobuf does: another wire type is ignored, the last scalar wins, a message
// is read on top of what is there, numbers of a repeated field add up.

absl::Status Read(const WireReader& /*reader*/, const WireField& field, std::int32_t& value) {
  if (IsVarint(field)) value = Int32(field);
  return absl::OkStatus();
}

absl::Status Read(const WireReader& /*reader*/, const WireField& field, std::int64_t& value) {
  if (IsVarint(field)) value = Int64(field);
  return absl::OkStatus();
}

// How many of `size` bytes come before the last character, which may go on behind them.
std::size_t BeforeLastCharacter(const char* bytes, std::size_t size) {
  constexpr std::size_t kMostFollowing = 3;  // Bytes of a character behind its first, each 10xxxxxx.
  const auto follows = [bytes](std::size_t i) { return (static_cast<unsigned char>(bytes[i]) & 0xC0) == 0x80; };
  std::size_t last = size - 1;
  while (last > 0 && last + kMostFollowing >= size && follows(last)) --last;
  return last;
}

// Looks at a piece at a time: a string may be as long as its message, and nobody has been asked for the memory of a
// copy.
bool IsUtf8(const WireBytes& bytes, ByteRange range) {
  std::array<char, 1024> piece;
  while (!range.empty()) {
    const bool is_last = range.size() <= static_cast<std::int64_t>(piece.size());
    auto size = is_last ? static_cast<std::size_t>(range.size()) : piece.size();
    bytes.Copy({range.begin, range.begin + static_cast<std::int64_t>(size)}, piece.data());
    if (!is_last) size = BeforeLastCharacter(piece.data(), size);
    if (!google::protobuf::internal::IsStructurallyValidUTF8(piece.data(), static_cast<int>(size))) return false;
    range.begin += static_cast<std::int64_t>(size);
  }
  return true;
}

// Protobuf accepts no other text than UTF-8 in a string.
absl::Status Read(const WireReader& reader, const WireField& field, RawText& text) {
  if (!IsLengthDelimited(field)) return absl::OkStatus();
  if (!IsUtf8(reader.bytes(), field.range)) return MalformedRequest(field.range.begin, "a string is not UTF-8");
  text = {field.range};
  return absl::OkStatus();
}

absl::Status Read(const WireReader& reader, const WireField& field, RawIntegers& integers) {
  return VisitIntegers(reader, field, [&integers](std::uint64_t) { ++integers.count; });
}

absl::Status CountFloats(const WireField& field, std::int64_t& count) {
  if (IsFixed32(field)) ++count;
  if (!IsLengthDelimited(field)) return absl::OkStatus();
  constexpr std::int64_t kSize = sizeof(float);
  count += field.range.size() / kSize;
  if (field.range.size() % kSize == 0) return absl::OkStatus();
  return MalformedRequest(field.range.begin,
                          "packed floats take 4 bytes each, and their length is not a multiple of 4");
}

absl::Status Read(const WireReader& reader, const WireField& field, RawOutputs& outputs) {
  return VisitIntegers(reader, field, [&outputs](std::uint64_t value) {
    const auto kind = static_cast<std::int32_t>(value);
    const std::int64_t index = outputs.count++;
    if (kind >= 0 && kind < RawOutputs::kNumKinds) {
      std::int64_t& first = outputs.first_index[static_cast<std::size_t>(kind)];
      if (first < 0) first = index;
    } else if (!outputs.unknown) {
      outputs.unknown = RawOutputs::Unknown{index, kind};
    }
  });
}

template <typename Raw>
absl::Status ReadMessage(WireReader reader, Raw& message);

// Any message.
template <typename Raw>
absl::Status Read(const WireReader& reader, const WireField& field, Raw& message) {
  return IsLengthDelimited(field) ? ReadMessage(reader.Message(field), message) : absl::OkStatus();
}

// Where a field of a message goes.
template <typename Raw, typename Member>
struct RawField {
  int number;
  Member Raw::*member;
};
template <typename Raw, typename Member>
RawField(int, Member Raw::*) -> RawField<Raw, Member>;  // clang 14 does not deduce it.

// The fields of a message that are read as they are; all others are ignored.
template <typename Raw>
constexpr int kFields = 0;
template <>
constexpr auto kFields<RawTensor> = std::tuple(RawField{v1::Tensor::kDataTypeFieldNumber, &RawTensor::data_type});
template <>
constexpr auto kFields<RawLinear> = std::tuple(RawField{v1::Linear::kWeightFieldNumber, &RawLinear::weight},
                                               RawField{v1::Linear::kBiasFieldNumber, &RawLinear::bias});
template <>
constexpr auto kFields<RawLayer> =
    std::tuple(RawField{v1::AttentionLayer::kQueryProjectionFieldNumber, &RawLayer::query_projection},
               RawField{v1::AttentionLayer::kKeyProjectionFieldNumber, &RawLayer::key_projection},
               RawField{v1::AttentionLayer::kValueProjectionFieldNumber, &RawLayer::value_projection},
               RawField{v1::AttentionLayer::kOutputProjectionFieldNumber, &RawLayer::output_projection},
               RawField{v1::AttentionLayer::kNumHeadsFieldNumber, &RawLayer::num_heads},
               RawField{v1::AttentionLayer::kNumKvHeadsFieldNumber, &RawLayer::num_kv_heads});
template <>
constexpr auto kFields<RawOptions> =
    std::tuple(RawField{v1::AttentionOptions::kMaskFieldNumber, &RawOptions::mask},
               RawField{v1::AttentionOptions::kKeyMaskFieldNumber, &RawOptions::key_mask},
               RawField{v1::AttentionOptions::kBiasFieldNumber, &RawOptions::bias},
               RawField{v1::AttentionOptions::kAttentionWeightsFormFieldNumber, &RawOptions::attention_weights_form},
               RawField{v1::AttentionOptions::kTopKFieldNumber, &RawOptions::top_k});
template <>
constexpr auto kFields<RawPartials> =
    std::tuple(RawField{v1::PartialAttention::kOutputFieldNumber, &RawPartials::output},
               RawField{v1::PartialAttention::kLogSumExpFieldNumber, &RawPartials::log_sum_exp});
template <>
constexpr auto kFields<RawAttendRequest> =
    std::tuple(RawField{v1::AttendRequest::kEmbeddingsFieldNumber, &RawAttendRequest::embeddings},
               RawField{v1::AttendRequest::kContextFieldNumber, &RawAttendRequest::context},
               RawField{v1::AttendRequest::kLayerFieldNumber, &RawAttendRequest::layer},
               RawField{v1::AttendRequest::kOptionsFieldNumber, &RawAttendRequest::options},
               RawField{v1::AttendRequest::kOutputsFieldNumber, &RawAttendRequest::outputs},
               RawField{v1::AttendRequest::kLayerNameFieldNumber, &RawAttendRequest::layer_name},
               RawField{v1::AttendRequest::kPositionOffsetFieldNumber, &RawAttendRequest::position_offset},
               RawField{v1::AttendRequest::kPositionOffsetsFieldNumber, &RawAttendRequest::position_offsets},
               RawField{v1::AttendRequest::kLayerEtagFieldNumber, &RawAttendRequest::layer_etag});
template <>
constexpr auto kFields<RawSdpaRequest> =
    std::tuple(RawField{v1::ScaledDotProductAttentionRequest::kQueryFieldNumber, &RawSdpaRequest::query},
               RawField{v1::ScaledDotProductAttentionRequest::kKeyFieldNumber, &RawSdpaRequest::key},
               RawField{v1::ScaledDotProductAttentionRequest::kValueFieldNumber, &RawSdpaRequest::value},
               RawField{v1::ScaledDotProductAttentionRequest::kOptionsFieldNumber, &RawSdpaRequest::options},
               RawField{v1::ScaledDotProductAttentionRequest::kOutputsFieldNumber, &RawSdpaRequest::outputs},
               RawField{v1::ScaledDotProductAttentionRequest::kPartialsFieldNumber, &RawSdpaRequest::partials},
               RawField{v1::ScaledDotProductAttentionRequest::kLayoutFieldNumber, &RawSdpaRequest::layout});

template <typename Raw>
absl::Status ReadField(const WireReader& reader, const WireField& field, Raw& message) {
  absl::Status status;
  const auto read = [&](const auto& known) {
    if (static_cast<std::uint32_t>(known.number) != field.number) return false;
    status = Read(reader, field, message.*known.member);
    return true;
  };
  std::apply([&read](const auto&... known) { (void)(read(known) || ...); }, kFields<Raw>);
  return status;
}

absl::Status ReadField(const WireReader& reader, const WireField& field, RawTensor& tensor) {
  switch (field.number) {
    case v1::Tensor::kShapeFieldNumber:
      return VisitIntegers(reader, field, [&tensor](std::uint64_t axis) {
        if (tensor.rank < kMaxRank) {
          tensor.shape[static_cast<std::size_t>(tensor.rank)] = static_cast<std::int64_t>(axis);
        }
        ++tensor.rank;
      });
    case v1::Tensor::kDataFieldNumber:
      if (IsLengthDelimited(field)) tensor.data = field.range;
      return absl::OkStatus();
    case v1::Tensor::kValuesFieldNumber: return CountFloats(field, tensor.num_values);
    default: return ReadField<RawTensor>(reader, field, tensor);
  }
}

absl::Status ReadField(const WireReader& reader, const WireField& field, RawOptions& options) {
  const OptionField option = FindOptionField(field.number);
  switch (option.kind) {
    case OptionField::Kind::kScalar:
      if (field.type == option.type) SetScalarOption(option.index, field, options.values);
      return absl::OkStatus();
    case OptionField::Kind::kFloatScalar:
      if (IsFixed32(field)) {
        options.float_scalars[option.index] = std::bit_cast<float>(static_cast<std::uint32_t>(field.value));
      }
      return absl::OkStatus();
    case OptionField::Kind::kEnum: return Read(reader, field, options.enums[option.index]);
    case OptionField::Kind::kPerHead: return Read(reader, field, options.per_head[option.index]);
    case OptionField::Kind::kLengths: return Read(reader, field, options.lengths[option.index]);
    case OptionField::Kind::kOther: break;
  }
  return ReadField<RawOptions>(reader, field, options);
}

template <typename Raw>
absl::Status ReadMessage(WireReader reader, Raw& message) {
  if constexpr (requires { message.present; }) message.present = true;
  return ForEachField(reader, [&](const WireField& field) { return ReadField(reader, field, message); });
}

}  // namespace

absl::Status ReadAttendRequest(const WireBytes& bytes, RawAttendRequest& request) {
  return ReadMessage(WireReader(bytes), request);
}

absl::Status ReadSdpaRequest(const WireBytes& bytes, RawSdpaRequest& request) {
  return ReadMessage(WireReader(bytes), request);
}

}  // namespace attend::server
