#include "tests/verify/core_views.h"

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "core/problem/sequences.h"
#include "server/wire/option_fields.h"

namespace attend::client {
namespace {

DataType TypeOf(const v1::Tensor& tensor) {
  switch (tensor.data_type()) {
    case v1::DATA_TYPE_FLOAT64: return DataType::kFloat64;
    case v1::DATA_TYPE_FLOAT16: return DataType::kFloat16;
    case v1::DATA_TYPE_BFLOAT16: return DataType::kBFloat16;
    default: return DataType::kFloat32;
  }
}

// A view of `axes` in which each axis of `given` that is 1 is repeated.
template <typename View>
View Broadcast(View view, const Axes& given, const Axes& axes) {
  view.batch_stride = given.batch == 1 ? 0 : view.batch_stride;
  view.head_stride = given.heads == 1 ? 0 : view.head_stride;
  view.row_stride = given.length == 1 ? 0 : view.row_stride;
  view.dim_stride = given.dim == 1 ? 0 : 1;
  view.batch = axes.batch;
  view.heads = axes.heads;
  view.length = axes.length;
  view.dim = axes.dim;
  return view;
}

CausalMode ToCore(v1::CausalMode mode) {
  switch (mode) {
    case v1::CAUSAL_MODE_BOTTOM_RIGHT: return CausalMode::kBottomRight;
    case v1::CAUSAL_MODE_TOP_LEFT: return CausalMode::kTopLeft;
    default: return CausalMode::kNone;
  }
}

absl::Span<const std::int64_t> IntegerSpan(const google::protobuf::RepeatedField<std::int64_t>& numbers) {
  return {numbers.data(), static_cast<std::size_t>(numbers.size())};
}

// How many columns mask, bias and scores have. Self-attention has no key lengths but those of the queries.
std::int64_t Columns(AttentionOptions options, std::int64_t key_length) {
  if (options.cumulative_key_lengths.empty()) options.cumulative_key_lengths = options.cumulative_query_lengths;
  return ScoreColumns(options, key_length);
}

template <typename T>
absl::Span<const T> SpanOf(const v1::Tensor& tensor) {
  return {reinterpret_cast<const T*>(tensor.data().data()), tensor.data().size() / sizeof(T)};
}

PerHeadView PerHead(const v1::Tensor& tensor) {
  if (TypeOf(tensor) == DataType::kFloat64) return SpanOf<double>(tensor);
  return SpanOf<float>(tensor);
}

LinearView ToCore(const v1::Linear& linear) {
  const Axes axes = AxesOf(linear.weight());
  return {linear.weight().data().data(),
          linear.has_bias() ? linear.bias().data().data() : nullptr,
          axes.length,
          axes.dim,
          TypeOf(linear.weight()),
          TypeOf(linear.bias())};
}

}  // namespace

Axes AxesOf(const v1::Tensor& tensor) {
  Axes axes;
  std::int64_t* const last_first[] = {&axes.dim, &axes.length, &axes.heads, &axes.batch};
  for (int i = 0; i < tensor.shape_size() && i < 4; ++i) *last_first[i] = tensor.shape(tensor.shape_size() - 1 - i);
  return axes;
}

bool IsTokensFirst(const v1::Tensor& tensor, v1::TensorLayout layout) {
  return layout == v1::TENSOR_LAYOUT_BTHE && tensor.shape_size() >= 3;
}

TypedHeadsView DenseView(const v1::Tensor& tensor, v1::TensorLayout layout) {
  const Axes axes = AxesOf(tensor);
  if (IsTokensFirst(tensor, layout)) {
    return MergedTypedHeads(tensor.data().data(), TypeOf(tensor), axes.batch, axes.length, axes.heads, axes.dim);
  }
  return SplitTypedHeads(tensor.data().data(), TypeOf(tensor), axes.batch, axes.heads, axes.length, axes.dim);
}

AttentionOptions ToCore(const v1::AttentionOptions& proto, Axes scores) {
  AttentionOptions options;
  options.cumulative_query_lengths = IntegerSpan(proto.cumulative_query_lengths());
  options.cumulative_key_lengths = IntegerSpan(proto.cumulative_key_lengths());
  scores.dim = Columns(options, scores.dim);
  server::SetScalarOptions(proto, options);  // Not what reads requests: that reads bytes.
  options.causal = ToCore(proto.causal());
  options.valid_lengths = IntegerSpan(proto.valid_lengths());
  options.alibi_slopes = PerHead(proto.alibi_slopes());
  options.sinks = PerHead(proto.sinks());
  if (proto.has_bias()) options.bias = Broadcast(DenseView(proto.bias()), AxesOf(proto.bias()), scores);
  if (proto.has_mask()) {
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(proto.mask().data().data());
    const Axes given = AxesOf(proto.mask());
    const MaskView mask = SplitHeads(bytes, given.batch, given.heads, given.length, given.dim);
    options.mask = Broadcast(mask, given, scores);
  }
  if (proto.has_key_mask()) {  // SdpaProblem::Create and AttendProblem::Create repeat its axes of size 1.
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(proto.key_mask().data().data());
    const Axes given = AxesOf(proto.key_mask());
    options.key_mask = SplitHeads(bytes, given.length, 1, 1, given.dim);
  }
  return options;
}

LayerView ToCore(const v1::AttentionLayer& proto) {
  LayerView layer{ToCore(proto.query_projection()), ToCore(proto.key_projection()), ToCore(proto.value_projection())};
  if (proto.has_output_projection()) layer.output = ToCore(proto.output_projection());
  layer.num_heads = proto.num_heads() == 0 ? 1 : proto.num_heads();
  layer.num_kv_heads = proto.num_kv_heads() == 0 ? layer.num_heads : proto.num_kv_heads();
  return layer;
}

EmbeddingsView EmbeddingsOf(const v1::Tensor& tensor) {
  const Axes axes = AxesOf(tensor);
  return {tensor.data().data(), axes.heads, axes.length, axes.dim, TypeOf(tensor)};
}

}  // namespace attend::client
