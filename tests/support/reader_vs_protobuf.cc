#include "tests/support/reader_vs_protobuf.h"

#include <google/protobuf/io/coded_stream.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attend/v1/attention_service.pb.h"
#include "server/wire/request_reader.h"
#include "server/wire/stream_messages.h"
#include "server/wire/wire_format.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // Deprecated fields are read as well.

namespace attend::server {
namespace {

// Collects the first difference.
class Comparison {
 public:
  explicit Comparison(const WireBytes& bytes) : bytes_(bytes) {}

  const std::string& difference() const { return difference_; }

  template <typename A, typename B>
  void Equal(absl::string_view field, const A& ours, const B& theirs) {
    if (difference_.empty() && !(ours == theirs)) {
      difference_ = absl::StrCat(field, ": ours ", ours, ", protobuf's ", theirs);
    }
  }

  void SameBits(absl::string_view field, const void* ours, const void* theirs, std::size_t size) {
    if (difference_.empty() && size != 0 && std::memcmp(ours, theirs, size) != 0) {
      difference_ = absl::StrCat(field, ": other bytes");
    }
  }

  void Scalar(absl::string_view field, std::optional<double> ours, bool has, double theirs) {
    Equal(absl::StrCat("has ", field), ours.has_value(), has);
    if (ours && has) SameBits(field, &*ours, &theirs, sizeof(double));
  }

  void FloatScalar(absl::string_view field, std::optional<float> ours, bool has, float theirs) {
    Equal(absl::StrCat("has ", field), ours.has_value(), has);
    if (ours && has) SameBits(field, &*ours, &theirs, sizeof(float));
  }

  void Scalar(absl::string_view field, std::optional<std::int64_t> ours, bool has, std::int64_t theirs) {
    Equal(absl::StrCat("has ", field), ours.has_value(), has);
    if (ours && has) Equal(field, *ours, theirs);
  }

  void Text(absl::string_view field, ByteRange ours, const std::string& theirs) {
    std::string text(static_cast<std::size_t>(ours.size()), '\0');
    bytes_.Copy(ours, text.data());
    Equal(field, text, theirs);
  }

  void TensorFields(const std::string& field, const RawTensor& ours, bool has, const v1::Tensor& theirs,
                    const FieldPath& path) {
    Equal(absl::StrCat("has ", field), ours.present, has);
    Equal(field + ".data_type", ours.data_type, static_cast<int>(theirs.data_type()));
    Equal(field + ".rank", ours.rank, theirs.shape_size());
    for (int i = 0; i < std::min(theirs.shape_size(), kMaxRank) && difference_.empty(); ++i) {
      Equal(field + ".shape", ours.shape[static_cast<std::size_t>(i)], theirs.shape(i));
    }
    std::string data(static_cast<std::size_t>(ours.data.size()), '\0');
    bytes_.Copy(ours.data, data.data());
    Equal(field + ".data size", data.size(), theirs.data().size());
    SameBits(field + ".data", data.data(), theirs.data().data(), data.size());
    Equal(field + ".num_values", ours.num_values, theirs.values_size());
    if (!difference_.empty()) return;
    std::vector<float> values;
    VisitFields(WireReader(bytes_), {path / v1::Tensor::kValuesFieldNumber},
                [&values](std::size_t, const WireReader& reader, const WireField& value) {
                  VisitFloats(reader, value, [&values](float v) { values.push_back(v); });
                });
    Equal(field + ".values size", static_cast<int>(values.size()), theirs.values_size());
    SameBits(field + ".values", values.data(), theirs.values().data(), values.size() * sizeof(float));
  }

  void LinearFields(const std::string& field, const RawLinear& ours, bool has, const v1::Linear& theirs,
                    const FieldPath& path) {
    Equal(absl::StrCat("has ", field), ours.present, has);
    TensorFields(field + ".weight", ours.weight, theirs.has_weight(), theirs.weight(), path / 1);
    TensorFields(field + ".bias", ours.bias, theirs.has_bias(), theirs.bias(), path / 2);
  }

  void LayerFields(const RawLayer& ours, bool has, const v1::AttentionLayer& theirs, const FieldPath& path) {
    Equal("has layer", ours.present, has);
    LinearFields("query_projection", ours.query_projection, theirs.has_query_projection(), theirs.query_projection(),
                 path / 1);
    LinearFields("key_projection", ours.key_projection, theirs.has_key_projection(), theirs.key_projection(), path / 2);
    LinearFields("value_projection", ours.value_projection, theirs.has_value_projection(), theirs.value_projection(),
                 path / 3);
    LinearFields("output_projection", ours.output_projection, theirs.has_output_projection(),
                 theirs.output_projection(), path / 4);
    Equal("num_heads", ours.num_heads, theirs.num_heads());
    Equal("num_kv_heads", ours.num_kv_heads, theirs.num_kv_heads());
  }

  void OptionFields(const RawOptions& ours, const v1::AttentionOptions& theirs) {
    const FieldPath path = {4};
    Scalar("scale", ours.values.scale, theirs.has_scale(), theirs.scale());
    FloatScalar("float_scale", ours.float_scalars[0], theirs.has_float_scale(), theirs.float_scale());
    FloatScalar("float_softcap", ours.float_scalars[3], theirs.has_float_softcap(), theirs.float_softcap());
    Equal("causal", ours.enums[0], static_cast<int>(theirs.causal()));
    Equal("precision", ours.enums[1], static_cast<int>(theirs.precision()));
    Scalar("sliding_window_left", ours.values.sliding_window_left, theirs.has_sliding_window_left(),
           theirs.sliding_window_left());
    Scalar("sliding_window_right", ours.values.sliding_window_right, theirs.has_sliding_window_right(),
           theirs.sliding_window_right());
    Scalar("softcap", ours.values.softcap, theirs.has_softcap(), theirs.softcap());
    LengthField("valid_lengths", ours.lengths[0], theirs.valid_lengths(), path / 6);
    LengthField("cumulative_query_lengths", ours.lengths[1], theirs.cumulative_query_lengths(), path / 12);
    LengthField("cumulative_key_lengths", ours.lengths[2], theirs.cumulative_key_lengths(), path / 13);
    TensorFields("mask", ours.mask, theirs.has_mask(), theirs.mask(), path / 7);
    TensorFields("key_mask", ours.key_mask, theirs.has_key_mask(), theirs.key_mask(), path / 17);
    TensorFields("bias", ours.bias, theirs.has_bias(), theirs.bias(), path / 8);
    TensorFields("alibi_slopes", ours.per_head[0], theirs.has_alibi_slopes(), theirs.alibi_slopes(), path / 9);
    TensorFields("sinks", ours.per_head[1], theirs.has_sinks(), theirs.sinks(), path / 10);
    Equal("attention_weights_form", ours.attention_weights_form, static_cast<int>(theirs.attention_weights_form()));
    Equal("top_k", ours.top_k, theirs.top_k());
  }

  template <typename Request>
  void OutputFields(const RawOutputs& ours, const Request& theirs) {
    Equal("outputs size", ours.count, theirs.outputs_size());
    RawOutputs expected;
    for (int i = 0; i < theirs.outputs_size(); ++i) {
      const int kind = theirs.outputs(i);
      if (kind >= 0 && kind < RawOutputs::kNumKinds) {
        std::int64_t& first = expected.first_index[static_cast<std::size_t>(kind)];
        if (first < 0) first = i;
      } else if (!expected.unknown) {
        expected.unknown = RawOutputs::Unknown{i, kind};
      }
    }
    Equal("known outputs", ours.first_index == expected.first_index, true);
    Equal("unknown outputs", ours.unknown.has_value(), expected.unknown.has_value());
    if (!ours.unknown || !expected.unknown) return;
    Equal("unknown output", ours.unknown->kind, expected.unknown->kind);
    Equal("unknown output's index", ours.unknown->index, expected.unknown->index);
  }

  template <typename Numbers>
  void LengthField(absl::string_view field, const RawIntegers& ours, const Numbers& theirs, const FieldPath& path) {
    Equal(absl::StrCat("number of ", field), ours.count, theirs.size());
    std::vector<std::int64_t> lengths;
    VisitFields(WireReader(bytes_), {path}, [&lengths](std::size_t, const WireReader& reader, const WireField& part) {
      (void)VisitIntegers(reader, part, [&](std::uint64_t v) { lengths.push_back(static_cast<std::int64_t>(v)); });
    });
    const std::vector<std::int64_t> expected(theirs.begin(), theirs.end());
    Equal(field, lengths == expected, true);
  }

 private:
  const WireBytes& bytes_;
  std::string difference_;
};

// Both verdicts; true when there are fields to compare.
bool Parse(std::string_view bytes, const absl::Status& ours, google::protobuf::MessageLite& theirs, bool* accepted,
           Comparison& comparison) {
  const bool parsed = theirs.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  if (accepted != nullptr) *accepted = parsed;
  comparison.Equal(absl::StrCat("accepted (", ours.message(), ")"), ours.ok(), parsed);
  return parsed && ours.ok();
}

// Whether protobuf accepts `bytes` when messages may nest `depth` deep.
bool ParseWithDepth(std::string_view bytes, int depth, google::protobuf::MessageLite& message) {
  google::protobuf::io::CodedInputStream in(reinterpret_cast<const std::uint8_t*>(bytes.data()),
                                            static_cast<int>(bytes.size()));
  in.SetRecursionLimit(depth);
  return message.ParseFromCodedStream(&in) && in.ConsumedEntireMessage();
}

int CountFields(const WireBytes& bytes, std::uint32_t number) {
  WireReader reader(bytes);
  WireField field;
  int count = 0;
  while (reader.Next(field)) count += field.number == number ? 1 : 0;
  return count;
}

}  // namespace

grpc::ByteBuffer Sliced(std::string_view bytes, std::size_t slice_size) {
  if (slice_size == 0) slice_size = std::max<std::size_t>(bytes.size(), 1);
  std::vector<grpc::Slice> slices;
  slices.reserve(2 * (bytes.size() / slice_size + 1));
  for (std::size_t i = 0; i < bytes.size(); i += slice_size) {
    const std::string_view piece = bytes.substr(i, slice_size);
    slices.emplace_back(piece.data(), piece.size());
    slices.emplace_back();
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

std::string CompareAttendRequest(std::string_view bytes, std::size_t slice_size, bool* accepted) {
  return CompareAttendRequest(bytes, Sliced(bytes, slice_size), accepted);
}

std::string CompareAttendRequest(std::string_view bytes, const grpc::ByteBuffer& buffer, bool* accepted) {
  const WireBytes wire(buffer);
  Comparison comparison(wire);
  RawAttendRequest ours;
  v1::AttendRequest theirs;
  const absl::Status status = ReadAttendRequest(wire, ours);
  if (!Parse(bytes, status, theirs, accepted, comparison)) return comparison.difference();
  comparison.TensorFields("embeddings", ours.embeddings, theirs.has_embeddings(), theirs.embeddings(), {1});
  comparison.TensorFields("context", ours.context, theirs.has_context(), theirs.context(), {2});
  comparison.LayerFields(ours.layer, theirs.has_layer(), theirs.layer(), {3});
  comparison.OptionFields(ours.options, theirs.options());
  comparison.OutputFields(ours.outputs, theirs);
  comparison.Text("layer_name", ours.layer_name, theirs.layer_name());
  comparison.Text("layer_etag", ours.layer_etag, theirs.layer_etag());
  comparison.Equal("position_offset", ours.position_offset, theirs.position_offset());
  comparison.LengthField("position_offsets", ours.position_offsets, theirs.position_offsets(), {8});
  return comparison.difference();
}

std::string CompareSdpaRequest(std::string_view bytes, std::size_t slice_size, bool* accepted) {
  return CompareSdpaRequest(bytes, Sliced(bytes, slice_size), accepted);
}

std::string CompareSdpaRequest(std::string_view bytes, const grpc::ByteBuffer& buffer, bool* accepted) {
  const WireBytes wire(buffer);
  Comparison comparison(wire);
  RawSdpaRequest ours;
  v1::ScaledDotProductAttentionRequest theirs;
  const absl::Status status = ReadSdpaRequest(wire, ours);
  if (!Parse(bytes, status, theirs, accepted, comparison)) return comparison.difference();
  comparison.TensorFields("query", ours.query, theirs.has_query(), theirs.query(), {1});
  comparison.TensorFields("key", ours.key, theirs.has_key(), theirs.key(), {2});
  comparison.TensorFields("value", ours.value, theirs.has_value(), theirs.value(), {3});
  comparison.Equal("has partials", ours.partials.present, theirs.has_partials());
  comparison.TensorFields("partials.output", ours.partials.output, theirs.partials().has_output(),
                          theirs.partials().output(), {6, 1});
  comparison.TensorFields("partials.log_sum_exp", ours.partials.log_sum_exp, theirs.partials().has_log_sum_exp(),
                          theirs.partials().log_sum_exp(), {6, 2});
  comparison.Equal("layout", ours.layout, static_cast<int>(theirs.layout()));
  comparison.OptionFields(ours.options, theirs.options());
  comparison.OutputFields(ours.outputs, theirs);
  return comparison.difference();
}

std::string CompareStreamRequest(std::string_view bytes, const grpc::ByteBuffer& buffer, bool* accepted) {
  const WireBytes wire(buffer);
  Comparison comparison(wire);
  StreamRequest ours;
  absl::Status status = ReadStreamRequest(buffer, ours);
  std::string carried;
  const bool is_sdpa = ours.request && ours.request->kind == RequestKind::kScaledDotProductAttention;
  if (status.ok() && ours.request) {
    const WireBytes payload(ours.request->bytes);
    carried.resize(static_cast<std::size_t>(payload.size()));
    payload.Copy({0, payload.size()}, carried.data());
    RawAttendRequest attend;
    RawSdpaRequest sdpa;
    status = is_sdpa ? ReadSdpaRequest(payload, sdpa) : ReadAttendRequest(payload, attend);
  }
  v1::StreamAttendRequest theirs, nested_deeper;
  const bool parsed = ParseWithDepth(bytes, 100, theirs);
  if (accepted != nullptr) *accepted = parsed;
  if (parsed) comparison.Equal(absl::StrCat("accepted (", status.message(), ")"), status.ok(), true);
  const int members = CountFields(wire, v1::StreamAttendRequest::kAttendFieldNumber) +
                      CountFields(wire, v1::StreamAttendRequest::kScaledDotProductAttentionFieldNumber);
  if (status.ok() && members <= 1) comparison.Equal("accepted", true, ParseWithDepth(bytes, 101, nested_deeper));
  if (!parsed || !status.ok()) return comparison.difference();
  comparison.Equal("id", ours.id, theirs.id());
  comparison.Equal("has timeout", ours.timeout.has_value(), theirs.has_timeout());
  const RawDuration timeout = ours.timeout.value_or(RawDuration{});
  comparison.Equal("timeout.seconds", timeout.seconds, theirs.timeout().seconds());
  comparison.Equal("timeout.nanos", timeout.nanos, theirs.timeout().nanos());
  comparison.Equal("has attend", ours.request && !is_sdpa, theirs.has_attend());
  comparison.Equal("has scaled_dot_product_attention", is_sdpa, theirs.has_scaled_dot_product_attention());
  v1::AttendRequest attend;
  v1::ScaledDotProductAttentionRequest sdpa;
  google::protobuf::Message& merged = is_sdpa ? static_cast<google::protobuf::Message&>(sdpa) : attend;
  comparison.Equal("what is carried parses", merged.ParseFromString(carried), true);
  comparison.Equal("attend", attend.SerializeAsString() == theirs.attend().SerializeAsString(), true);
  comparison.Equal("scaled_dot_product_attention",
                   sdpa.SerializeAsString() == theirs.scaled_dot_product_attention().SerializeAsString(), true);
  return comparison.difference();
}

}  // namespace attend::server
