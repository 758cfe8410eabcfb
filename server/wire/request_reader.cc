#include "server/wire/request_reader.h"

#include <bit>
#include <string>

#include "attend/v1/attention_service.pb.h"
#include "attend/v1/tensor.pb.h"
#include "server/wire/utf8.h"

namespace attend::server {
namespace {

using v1::AttendRequest;
using v1::AttentionLayer;
using v1::AttentionOptions;
using v1::Linear;
using v1::PartialAttention;
using v1::ScaledDotProductAttentionRequest;
using v1::Tensor;

bool IsVarint(const WireField& field) { return field.type == WireType::kVarint; }
bool IsFixed32(const WireField& field) { return field.type == WireType::kFixed32; }
bool IsLengthDelimited(const WireField& field) { return field.type == WireType::kLengthDelimited; }

// Numbers as protobuf truncates them.
std::int32_t Int32(const WireField& field) { return static_cast<std::int32_t>(field.value); }
std::int64_t Int64(const WireField& field) { return static_cast<std::int64_t>(field.value); }
float Float(const WireField& field) { return std::bit_cast<float>(static_cast<std::uint32_t>(field.value)); }

absl::Status ReadScalar(const WireField& field, std::int32_t& value) {
  if (IsVarint(field)) value = Int32(field);
  return absl::OkStatus();
}
absl::Status ReadScalar(const WireField& field, std::int64_t& value) {
  if (IsVarint(field)) value = Int64(field);
  return absl::OkStatus();
}
absl::Status ReadScalar(const WireField& field, std::optional<std::int64_t>& value) {
  if (IsVarint(field)) value = Int64(field);
  return absl::OkStatus();
}
absl::Status ReadScalar(const WireField& field, std::optional<float>& value) {
  if (IsFixed32(field)) value = Float(field);
  return absl::OkStatus();
}

// Protobuf accepts no other text than UTF-8 in a string.
absl::Status ReadText(const WireReader& reader, const WireField& field, ByteRange& text) {
  if (!IsLengthDelimited(field)) return absl::OkStatus();
  std::string bytes(static_cast<std::size_t>(field.range.size()), '\0');
  reader.bytes().Copy(field.range, bytes.data());
  if (!IsUtf8(bytes)) return MalformedRequest(field.range.begin, "a string is not UTF-8");
  text = field.range;
  return absl::OkStatus();
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

absl::Status CountIntegers(const WireReader& reader, const WireField& field, std::int64_t& count) {
  return VisitIntegers(reader, field, [&count](std::uint64_t) { ++count; });
}

absl::Status ReadOutputs(const WireReader& reader, const WireField& field, RawOutputs& outputs) {
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

absl::Status ReadFields(WireReader reader, RawTensor& tensor) {
  tensor.present = true;
  return ForEachField(reader, [&](const WireField& field) {
    switch (field.number) {
      case Tensor::kDataTypeFieldNumber: return ReadScalar(field, tensor.data_type);
      case Tensor::kShapeFieldNumber:
        return VisitIntegers(reader, field, [&tensor](std::uint64_t axis) {
          if (tensor.rank < kMaxRank) {
            tensor.shape[static_cast<std::size_t>(tensor.rank)] = static_cast<std::int64_t>(axis);
          }
          ++tensor.rank;
        });
      case Tensor::kDataFieldNumber:
        if (IsLengthDelimited(field)) tensor.data = field.range;
        return absl::OkStatus();
      case Tensor::kValuesFieldNumber: return CountFloats(field, tensor.num_values);
      default: return absl::OkStatus();
    }
  });
}

// Reads `field` as a message into `message`, on top of what is there; ignores other wire types.
template <typename Raw>
absl::Status ReadMessage(const WireReader& reader, const WireField& field, Raw& message);

absl::Status ReadFields(WireReader reader, RawLinear& linear) {
  linear.present = true;
  return ForEachField(reader, [&](const WireField& field) {
    switch (field.number) {
      case Linear::kWeightFieldNumber: return ReadMessage(reader, field, linear.weight);
      case Linear::kBiasFieldNumber: return ReadMessage(reader, field, linear.bias);
      default: return absl::OkStatus();
    }
  });
}

absl::Status ReadFields(WireReader reader, RawLayer& layer) {
  layer.present = true;
  return ForEachField(reader, [&](const WireField& field) {
    switch (field.number) {
      case AttentionLayer::kQueryProjectionFieldNumber: return ReadMessage(reader, field, layer.query_projection);
      case AttentionLayer::kKeyProjectionFieldNumber: return ReadMessage(reader, field, layer.key_projection);
      case AttentionLayer::kValueProjectionFieldNumber: return ReadMessage(reader, field, layer.value_projection);
      case AttentionLayer::kOutputProjectionFieldNumber: return ReadMessage(reader, field, layer.output_projection);
      case AttentionLayer::kNumHeadsFieldNumber: return ReadScalar(field, layer.num_heads);
      case AttentionLayer::kNumKvHeadsFieldNumber: return ReadScalar(field, layer.num_kv_heads);
      default: return absl::OkStatus();
    }
  });
}

absl::Status ReadFields(WireReader reader, RawOptions& options) {
  return ForEachField(reader, [&](const WireField& field) {
    switch (field.number) {
      case AttentionOptions::kScaleFieldNumber: return ReadScalar(field, options.scale);
      case AttentionOptions::kCausalFieldNumber: return ReadScalar(field, options.causal);
      case AttentionOptions::kSlidingWindowLeftFieldNumber: return ReadScalar(field, options.sliding_window_left);
      case AttentionOptions::kSlidingWindowRightFieldNumber: return ReadScalar(field, options.sliding_window_right);
      case AttentionOptions::kSoftcapFieldNumber: return ReadScalar(field, options.softcap);
      case AttentionOptions::kValidLengthsFieldNumber: return CountIntegers(reader, field, options.num_valid_lengths);
      case AttentionOptions::kCumulativeQueryLengthsFieldNumber:
        return CountIntegers(reader, field, options.num_cumulative_query_lengths);
      case AttentionOptions::kCumulativeKeyLengthsFieldNumber:
        return CountIntegers(reader, field, options.num_cumulative_key_lengths);
      case AttentionOptions::kMaskFieldNumber: return ReadMessage(reader, field, options.mask);
      case AttentionOptions::kBiasFieldNumber: return ReadMessage(reader, field, options.bias);
      case AttentionOptions::kAlibiSlopesFieldNumber: return ReadMessage(reader, field, options.alibi_slopes);
      case AttentionOptions::kSinksFieldNumber: return ReadMessage(reader, field, options.sinks);
      case AttentionOptions::kAttentionWeightsFormFieldNumber: return ReadScalar(field, options.attention_weights_form);
      case AttentionOptions::kTopKFieldNumber: return ReadScalar(field, options.top_k);
      default: return absl::OkStatus();
    }
  });
}

absl::Status ReadFields(WireReader reader, RawPartials& partials) {
  partials.present = true;
  return ForEachField(reader, [&](const WireField& field) {
    switch (field.number) {
      case PartialAttention::kOutputFieldNumber: return ReadMessage(reader, field, partials.output);
      case PartialAttention::kLogSumExpFieldNumber: return ReadMessage(reader, field, partials.log_sum_exp);
      default: return absl::OkStatus();
    }
  });
}

template <typename Raw>
absl::Status ReadMessage(const WireReader& reader, const WireField& field, Raw& message) {
  return IsLengthDelimited(field) ? ReadFields(reader.Message(field), message) : absl::OkStatus();
}

}  // namespace

absl::Status ReadAttendRequest(const WireBytes& bytes, RawAttendRequest& request) {
  WireReader reader(bytes);
  return ForEachField(reader, [&](const WireField& field) {
    switch (field.number) {
      case AttendRequest::kEmbeddingsFieldNumber: return ReadMessage(reader, field, request.embeddings);
      case AttendRequest::kContextFieldNumber: return ReadMessage(reader, field, request.context);
      case AttendRequest::kLayerFieldNumber: return ReadMessage(reader, field, request.layer);
      case AttendRequest::kOptionsFieldNumber: return ReadMessage(reader, field, request.options);
      case AttendRequest::kOutputsFieldNumber: return ReadOutputs(reader, field, request.outputs);
      case AttendRequest::kLayerNameFieldNumber: return ReadText(reader, field, request.layer_name);
      case AttendRequest::kPositionOffsetFieldNumber: return ReadScalar(field, request.position_offset);
      default: return absl::OkStatus();
    }
  });
}

absl::Status ReadSdpaRequest(const WireBytes& bytes, RawSdpaRequest& request) {
  using Request = ScaledDotProductAttentionRequest;
  WireReader reader(bytes);
  return ForEachField(reader, [&](const WireField& field) {
    switch (field.number) {
      case Request::kQueryFieldNumber: return ReadMessage(reader, field, request.query);
      case Request::kKeyFieldNumber: return ReadMessage(reader, field, request.key);
      case Request::kValueFieldNumber: return ReadMessage(reader, field, request.value);
      case Request::kOptionsFieldNumber: return ReadMessage(reader, field, request.options);
      case Request::kOutputsFieldNumber: return ReadOutputs(reader, field, request.outputs);
      case Request::kPartialsFieldNumber: return ReadMessage(reader, field, request.partials);
      default: return absl::OkStatus();
    }
  });
}

}  // namespace attend::server
