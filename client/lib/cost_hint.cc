#include "client/lib/cost_hint.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_format.h"

namespace attend::client {
namespace {

// Axis `from_end` of a tensor's shape, counted from its end; 1 when there is none.
double Axis(const v1::Tensor& tensor, int from_end) {
  const int axis = tensor.shape_size() - 1 - from_end;
  return axis >= 0 ? static_cast<double>(tensor.shape(axis)) : 1;
}

// A named layer's heads, projections, mask and window are the server's: of a large request all that can be said may be
// too high, and feasible work be refused. What is small without a mask, and with the usual projections, is small.
constexpr double kSmallFlops = 1e6;

// What the options are about. Numbers are double because a shape may say anything: nothing overflows.
struct Extent {
  double batch = 1;
  double queries = 1;
  double keys = 1;
  bool is_self_attention = false;  // What the lengths say of keys, they say of queries.
};

// The sum of clamp(first + i, 0, limit) over i in [0, count).
double SumOfClampedRamp(double first, double count, double limit) {
  const double ramp_begin = std::clamp(-first, 0.0, count);              // The first i above 0.
  const double ramp_end = std::clamp(limit - first, ramp_begin, count);  // The first i at the limit.
  const double ends = (first + ramp_begin) + (first + ramp_end - 1);
  return (ramp_end - ramp_begin) * ends / 2 + (count - ramp_end) * limit;
}

// The visible pairs of one head and one sequence, by the rule of core/problem/key_visibility.h; `valid_queries` moves
// positions alone. REQUIRES: no number is below 0.
double PairsOfSequence(const v1::AttentionOptions& options, double queries, double keys, double valid_queries) {
  const double everything = queries + keys;  // No position is further from any key.
  const bool is_top_left = options.causal() == v1::CAUSAL_MODE_TOP_LEFT;
  const bool is_causal = is_top_left || options.causal() == v1::CAUSAL_MODE_BOTTOM_RIGHT;
  const auto window = [everything](bool is_given, std::int64_t size) {
    return is_given ? std::min(static_cast<double>(size), everything) : everything;
  };
  const double ahead = is_causal ? 0 : window(options.has_sliding_window_right(), options.sliding_window_right());
  const double behind = window(options.has_sliding_window_left(), options.sliding_window_left());
  const double position = is_top_left ? 0 : keys - valid_queries;  // Of the first query.
  return SumOfClampedRamp(position + ahead + 1, queries, keys) - SumOfClampedRamp(position - behind, queries, keys);
}

// The same of a ragged batch. Nothing when its lengths do not make sense.
std::optional<double> PairsOfSequences(const v1::AttentionOptions& options, const Extent& extent) {
  const auto& queries = options.cumulative_query_lengths();
  const bool has_own_keys = options.cumulative_key_lengths_size() > 0 || !extent.is_self_attention;
  const auto& keys = has_own_keys ? options.cumulative_key_lengths() : queries;
  if (extent.batch != 1 || queries.size() < 2 || keys.size() != queries.size()) return std::nullopt;
  double pairs = 0, all_queries = 0, all_keys = 0;
  for (int n = 0; n + 1 < queries.size(); ++n) {
    const double num_queries = static_cast<double>(queries[n + 1]) - static_cast<double>(queries[n]);
    const double num_keys = static_cast<double>(keys[n + 1]) - static_cast<double>(keys[n]);
    if (num_queries < 0 || num_keys < 0) return std::nullopt;
    pairs += PairsOfSequence(options, num_queries, num_keys, num_queries);
    all_queries += num_queries;
    all_keys += num_keys;
  }
  return all_queries == extent.queries && all_keys == extent.keys ? std::make_optional(pairs) : std::nullopt;
}

// The pairs of query and key of one head that causality, windows and lengths leave, over the whole batch. Nothing when
// shape or lengths do not make sense.
std::optional<double> VisiblePairs(const v1::AttentionOptions& options, const Extent& extent) {
  if (extent.batch < 0 || extent.queries < 0 || extent.keys < 0) return std::nullopt;
  if (options.cumulative_query_lengths_size() > 0 || options.cumulative_key_lengths_size() > 0) {
    return PairsOfSequences(options, extent);
  }
  if (options.valid_lengths_size() == 0) {
    return extent.batch * PairsOfSequence(options, extent.queries, extent.keys, extent.queries);
  }
  if (options.valid_lengths_size() != extent.batch) return std::nullopt;
  double pairs = 0;
  for (const std::int64_t length : options.valid_lengths()) {
    const auto keys = static_cast<double>(length);
    if (keys < 0 || keys > extent.keys) return std::nullopt;
    pairs += PairsOfSequence(options, extent.queries, keys, extent.is_self_attention ? keys : extent.queries);
  }
  return pairs;
}

std::optional<std::string> Format(double flops) {
  return flops > 0 ? std::make_optional(absl::StrFormat("%.3g", flops)) : std::nullopt;
}

// Of projecting `rows` rows; the weight's shape is [out, in].
double ProjectionFlops(const v1::Linear& linear, double rows) {
  return 2 * rows * Axis(linear.weight(), 0) * Axis(linear.weight(), 1);
}

}  // namespace

std::optional<std::string> CostHint(const v1::AttendRequest& request) {
  const v1::Tensor& context = request.has_context() ? request.context() : request.embeddings();
  const Extent extent{Axis(request.embeddings(), 2), Axis(request.embeddings(), 1), Axis(context, 1),
                      !request.has_context()};
  const std::optional<double> pairs = VisiblePairs(request.options(), extent);
  if (!pairs.has_value()) return std::nullopt;
  const bool is_named = !request.layer_name().empty();
  if (is_named || !request.has_layer()) {
    const double dim = Axis(request.embeddings(), 0);
    const double flops = 2 * 2 * dim * *pairs;
    const double usual = flops + 4 * 2 * extent.batch * extent.queries * dim * dim;
    return is_named && usual > kSmallFlops ? std::nullopt : Format(flops);
  }
  const v1::AttentionLayer& layer = request.layer();
  const double heads_over_kv =
      layer.num_kv_heads() > 0 ? static_cast<double>(std::max(1, layer.num_heads())) / layer.num_kv_heads() : 1;
  const double heads_by_dims =  // H (E + V).
      Axis(layer.query_projection().weight(), 1) + heads_over_kv * Axis(layer.value_projection().weight(), 1);
  double flops = 2 * heads_by_dims * *pairs;
  flops += ProjectionFlops(layer.query_projection(), extent.batch * extent.queries);
  flops += ProjectionFlops(layer.key_projection(), extent.batch * extent.keys);
  flops += ProjectionFlops(layer.value_projection(), extent.batch * extent.keys);
  if (layer.has_output_projection()) {
    flops += ProjectionFlops(layer.output_projection(), extent.batch * extent.queries);
  }
  return Format(flops);
}

std::optional<std::string> CostHint(const v1::ScaledDotProductAttentionRequest& request) {
  // Tokens stand before heads in TENSOR_LAYOUT_BTHE, where there are heads.
  const bool tokens_first = request.layout() == v1::TENSOR_LAYOUT_BTHE && request.query().shape_size() > 2;
  const int tokens = tokens_first ? 2 : 1;
  const double heads = Axis(request.query(), 3 - tokens);
  const double dims = Axis(request.query(), 0) + Axis(request.value(), 0);
  const std::optional<double> pairs = VisiblePairs(
      request.options(), {Axis(request.query(), 3), Axis(request.query(), tokens), Axis(request.key(), tokens)});
  return pairs.has_value() ? Format(2 * heads * dims * *pairs) : std::nullopt;
}

}  // namespace attend::client
