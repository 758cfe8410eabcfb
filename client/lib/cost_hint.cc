#include "client/lib/cost_hint.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace attend::client {
namespace {

// Axis `from_end` of a tensor's shape, counted from its end; 1 when there is none.
double Axis(const v1::Tensor& tensor, int from_end) {
  const int axis = tensor.shape_size() - 1 - from_end;
  return axis >= 0 ? static_cast<double>(tensor.shape(axis)) : 1;
}

// The pairs of query and key that causality and window leave.
double VisiblePairs(const v1::AttentionOptions& options, double queries, double keys) {
  double per_query = keys;
  if (options.causal() == v1::CAUSAL_MODE_BOTTOM_RIGHT || options.causal() == v1::CAUSAL_MODE_TOP_LEFT) {
    per_query = keys > queries ? keys - queries / 2 : keys / 2;
  }
  if (options.has_sliding_window_left() && options.has_sliding_window_right()) {
    per_query = std::min(per_query, static_cast<double>(options.sliding_window_left()) +
                                        static_cast<double>(options.sliding_window_right()) + 1);
  }
  return queries * per_query;
}

std::optional<std::string> Format(const v1::AttentionOptions& options, double flops) {
  if (options.cumulative_query_lengths_size() > 0 || options.cumulative_key_lengths_size() > 0) return std::nullopt;
  if (!(flops > 0)) return std::nullopt;
  return absl::StrFormat("%.3g", flops);
}

// Of projecting `rows` rows; the weight's shape is [out, in].
double ProjectionFlops(const v1::Linear& linear, double rows) {
  return 2 * rows * Axis(linear.weight(), 0) * Axis(linear.weight(), 1);
}

}  // namespace

std::optional<std::string> CostHint(const v1::AttendRequest& request) {
  const v1::Tensor& context = request.has_context() ? request.context() : request.embeddings();
  const double batch = Axis(request.embeddings(), 2);
  const double queries = Axis(request.embeddings(), 1);
  const double keys = Axis(context, 1);
  double heads_by_dims = 2 * Axis(request.embeddings(), 0);  // H (E + V).
  double flops = 0;
  if (request.has_layer()) {
    const v1::AttentionLayer& layer = request.layer();
    const double heads_over_kv =
        layer.num_kv_heads() > 0 ? static_cast<double>(layer.num_heads()) / layer.num_kv_heads() : 1;
    heads_by_dims =
        Axis(layer.query_projection().weight(), 1) + heads_over_kv * Axis(layer.value_projection().weight(), 1);
    flops += ProjectionFlops(layer.query_projection(), batch * queries);
    flops += ProjectionFlops(layer.key_projection(), batch * keys);
    flops += ProjectionFlops(layer.value_projection(), batch * keys);
    if (layer.has_output_projection()) flops += ProjectionFlops(layer.output_projection(), batch * queries);
  }
  flops += 2 * batch * heads_by_dims * VisiblePairs(request.options(), queries, keys);
  return Format(request.options(), flops);
}

std::optional<std::string> CostHint(const v1::ScaledDotProductAttentionRequest& request) {
  // Tokens stand before heads in TENSOR_LAYOUT_BTHE, where there are heads.
  const bool tokens_first = request.layout() == v1::TENSOR_LAYOUT_BTHE && request.query().shape_size() > 2;
  const int tokens = tokens_first ? 2 : 1;
  const double heads = Axis(request.query(), 3 - tokens) * Axis(request.query(), 3);  // With the batch.
  const double dims = Axis(request.query(), 0) + Axis(request.value(), 0);
  const double pairs = VisiblePairs(request.options(), Axis(request.query(), tokens), Axis(request.key(), tokens));
  return Format(request.options(), 2 * heads * dims * pairs);
}

}  // namespace attend::client
