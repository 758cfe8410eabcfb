#include "server/layers/layer.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/layers/layer_config.h"
#include "server/wire/enums.h"
#include "server/wire/option_fields.h"

namespace attend::server {
namespace {

// A configuration that takes no more is not counted: an honest one has some hundred bytes, or kilobytes of frequencies.
constexpr std::size_t kUncountedConfigBytes = 8 << 10;

// What a name takes beside its bytes.
constexpr std::size_t kBytesOfName = 64;

std::int64_t WeightBytes(const LinearView& linear) {
  return linear.out_features * linear.in_features * ElementSize(linear.weight_type);
}

void SetCreateTime(std::int64_t milliseconds, v1::Layer& layer) {
  *layer.mutable_create_time() = google::protobuf::util::TimeUtil::MillisecondsToTimestamp(milliseconds);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // Clients of version 0.1 read nothing else.
  layer.set_create_time_ms(milliseconds);
#pragma GCC diagnostic pop
}

absl::Status NotDivided(const char* field, std::int64_t heads, const char* what, std::int64_t rows) {
  return InvalidField(field, absl::StrCat(field, " is ", heads, "; it must divide the ", rows, " rows of the layer's ",
                                          what, " weight"));
}

// What AttendProblem::Create would blame on the weights, which are given, and is about the configuration, which is to
// be found. REQUIRES: ValidateHeadCounts.
absl::Status CheckHeadSizes(const LayerView& view) {
  const std::int64_t heads = view.num_heads, kv_heads = view.num_kv_heads;
  constexpr char kKvHeads[] = "config.num_kv_heads";
  if (view.query.out_features % heads != 0) {
    return NotDivided("config.num_heads", heads, "query", view.query.out_features);
  }
  if (view.key.out_features % kv_heads != 0) return NotDivided(kKvHeads, kv_heads, "key", view.key.out_features);
  if (view.value.out_features % kv_heads != 0) return NotDivided(kKvHeads, kv_heads, "value", view.value.out_features);
  const std::int64_t query_dim = view.query.out_features / heads, key_dim = view.key.out_features / kv_heads;
  if (query_dim == key_dim) return absl::OkStatus();
  return InvalidField(kKvHeads, absl::StrCat(kKvHeads, " is ", kv_heads, ", which gives each key head the size ",
                                             key_dim, ", but ", heads, " query heads (config.num_heads) have the size ",
                                             query_dim, "; they must be equal"));
}

// What AttendProblem::Create checks about a layer, in the words of its configuration. REQUIRES: per-head options have a
// number for each head.
absl::Status CheckLayer(const LayerView& view, const AttentionOptions& options) {
  const LayerTokens tokens{.type = view.query.weight_type,
                           .query_dim = view.query.in_features,
                           .context_dim = view.key.in_features,
                           .has_context = true};
  absl::Status status = ValidateLayer(view, tokens,
                                      {.heads = "config",
                                       .rotary = "config.rotary_embedding",
                                       .other_type = "layer.query_projection.weight.data_type"});
  status.Update(ValidateScalarOptions(options, "config.options"));
  return status;
}

// Sets what the configuration and the weights say about one norm.
absl::Status CompleteNorm(const v1::LayerConfig& config, const char* name, std::int64_t head_dim, std::int64_t heads,
                          bool is_double, NormView& norm) {
  if (norm.weight == nullptr) return absl::OkStatus();
  if (norm.size != head_dim && norm.size != head_dim * heads) {
    return InvalidField(name, absl::StrCat(name, " has ", norm.size, " elements; it must have ", head_dim,
                                           ", the size of a head, or ", head_dim * heads, ", that of all"));
  }
  const bool by_layer = config.norm_kind() == v1::NORM_KIND_UNSPECIFIED ? norm.bias != nullptr
                                                                        : config.norm_kind() == v1::NORM_KIND_LAYER;
  norm.kind = by_layer ? NormKind::kLayer : NormKind::kRms;
  norm.epsilon = config.has_norm_epsilon() ? config.norm_epsilon() : by_layer ? 1e-5 : 1e-6;
  if (!is_double) norm.epsilon = static_cast<float>(norm.epsilon);
  if (!std::isfinite(norm.epsilon)) {
    return InvalidField("config.norm_epsilon",
                        "config.norm_epsilon is beyond the largest float32, to which it is rounded unless the weights "
                        "are FLOAT64");
  }
  norm.adds_one = config.norm_adds_one();
  return absl::OkStatus();
}

absl::Status CheckNormConfig(const v1::LayerConfig& config) {
  if (!v1::NormKind_IsValid(config.norm_kind())) {
    return InvalidField("config.norm_kind", "config.norm_kind must be NORM_KIND_RMS (1) or NORM_KIND_LAYER (2)");
  }
  if (config.norm_epsilon() >= 0 && std::isfinite(config.norm_epsilon())) return absl::OkStatus();
  return InvalidField("config.norm_epsilon", "config.norm_epsilon must be a finite number of at least 0");
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Layer>> Layer::Create(const LayerWeights& weights, const v1::LayerConfig& caller,
                                                           Identity identity, InstructionSet instruction_set,
                                                           Executor* executor) {
  v1::LayerConfig given = caller;
  if (absl::Status status = ReplaceFloatFields(given); !status.ok()) return status;
  v1::LayerConfig config = MergeLayerConfig(weights.config, given);
  std::shared_ptr<Layer> layer(new Layer());
  LayerView& view = layer->view_;
  view.query = weights.query;
  view.key = weights.key;
  view.value = weights.value;
  view.output = weights.output;
  view.num_heads = config.num_heads() == 0 ? 1 : config.num_heads();
  view.num_kv_heads = config.num_kv_heads() == 0 ? view.num_heads : config.num_kv_heads();
  if (absl::Status status = ValidateHeadCounts(view, "config"); !status.ok()) return status;
  if (absl::Status status = CheckHeadSizes(view); !status.ok()) return status;
  const bool is_double = view.query.weight_type == DataType::kFloat64;
  absl::StatusOr<LayerOptions> options = ReadLayerOptions(config.options(), view.num_heads, is_double);
  if (!options.ok()) return options.status();
  layer->options_ = *std::move(options);
  // Before anything is computed from sizes: after it they are known to be.
  if (absl::Status status = CheckLayer(view, layer->options_.options); !status.ok()) return status;

  const std::int64_t head_dim = view.query.out_features / view.num_heads;
  if (config.has_rotary_embedding() && config.rotary_embedding().form() != v1::ROTARY_FORM_NONE) {
    absl::StatusOr<v1::RotaryEmbedding> rotary = CompleteRotary(config.rotary_embedding(), head_dim);
    if (!rotary.ok()) return rotary.status();
    layer->frequencies_ = RotaryFrequencies(*rotary, 0);
    view.rotary = {layer->frequencies_, rotary->form() == v1::ROTARY_FORM_INTERLEAVED,
                   rotary->has_attention_factor() ? rotary->attention_factor() : 1};
    if (DependsOnLength(*rotary)) layer->short_context_length_ = rotary->original_context_length();
    layer->rotary_ = *rotary;
    *config.mutable_rotary_embedding() = *std::move(rotary);
  }
  if (absl::Status status = CheckNormConfig(config); !status.ok()) return status;
  view.norms_after_rotary = config.norm_after_rotary();
  view.query_norm = weights.query_norm;
  view.key_norm = weights.key_norm;
  absl::Status norms = CompleteNorm(config, "query_norm", head_dim, view.num_heads, is_double, view.query_norm);
  norms.Update(CompleteNorm(config, "key_norm", head_dim, view.num_kv_heads, is_double, view.key_norm));
  if (!norms.ok()) return norms;
  if (absl::Status status = CheckLayer(view, layer->options_.options); !status.ok()) return status;

  layer->Describe(config, weights, std::move(identity));  // Before packing, which replaces the views.
  layer->Pack(instruction_set, executor);
  layer->KeepNorms();
  layer->CountConfig();
  return layer;
}

std::shared_ptr<const std::vector<double>> Layer::FrequenciesFor(std::int64_t length) const {
  if (short_context_length_ == 0 || length <= short_context_length_) return nullptr;
  return std::make_shared<const std::vector<double>>(RotaryFrequencies(rotary_, length));
}

void Layer::Pack(InstructionSet instruction_set, Executor* executor) {
  const auto copy = [this](const void* from, std::int64_t bytes) -> const void* {
    if (from == nullptr) return nullptr;
    copies_.emplace_back(bytes);
    return std::memcpy(copies_.back().data(), from, static_cast<std::size_t>(bytes));
  };
  std::int64_t bytes = 0;
  for (LinearView* linear : {&view_.query, &view_.key, &view_.value, &view_.output}) {
    if (!linear->present()) continue;
    if (linear->weight_type == DataType::kFloat64) {
      linear->weight = copy(linear->weight, WeightBytes(*linear));
      linear->bias = copy(linear->bias, linear->out_features * ElementSize(linear->bias_type));
      bytes += WeightBytes(*linear) + (linear->bias != nullptr ? 8 * linear->out_features : 0);
      continue;
    }
    packed_.push_back(std::make_unique<PackedLinear>(*linear, instruction_set, executor));
    linear->packed = packed_.back().get();
    linear->weight = linear->bias = nullptr;
    bytes += linear->packed->bytes();
  }
  description_.set_memory_bytes(description_.memory_bytes() + bytes);
}

void Layer::KeepNorms() {
  for (NormView* norm : {&view_.query_norm, &view_.key_norm}) {
    for (const float** vector : {&norm->weight, &norm->bias}) {
      if (*vector == nullptr) continue;
      const std::int64_t bytes = norm->size * std::int64_t{sizeof(float)};
      copies_.emplace_back(bytes);
      *vector = static_cast<const float*>(std::memcpy(copies_.back().data(), *vector, static_cast<std::size_t>(bytes)));
      description_.set_memory_bytes(description_.memory_bytes() + bytes);
    }
  }
}

void Layer::Describe(const v1::LayerConfig& config, const LayerWeights& weights, Identity identity) {
  v1::Layer& layer = description_;
  layer.set_name(std::move(identity.name));
  layer.set_etag(std::move(identity.etag));
  layer.set_origin(std::move(identity.origin));
  layer.set_sha256(std::move(identity.sha256));
  layer.set_read_only(identity.read_only);
  SetCreateTime(identity.create_time_ms, layer);
  layer.set_naming(weights.naming);
  layer.mutable_notes()->Assign(weights.notes.begin(), weights.notes.end());
  layer.set_embed_dim(view_.query.in_features);
  layer.set_context_dim(view_.key.in_features);
  layer.set_head_dim(view_.query.out_features / view_.num_heads);
  layer.set_value_dim(view_.value.out_features / view_.num_kv_heads);
  layer.set_output_dim(view_.output.present() ? view_.output.out_features : view_.num_heads * layer.value_dim());
  layer.set_has_output_projection(view_.output.present());
  layer.set_has_query_norm(view_.query_norm.weight != nullptr);
  layer.set_has_key_norm(view_.key_norm.weight != nullptr);
  layer.set_has_alibi_slopes(config.options().has_alibi_slopes());
  layer.set_has_sinks(config.options().has_sinks());
  DescribeConfig(config);
  DescribeWeights();
}

// With every default filled in, and without tensors.
void Layer::DescribeConfig(const v1::LayerConfig& config) {
  v1::LayerConfig& complete = *description_.mutable_config();
  complete = config;
  complete.set_num_heads(static_cast<std::int32_t>(view_.num_heads));
  complete.set_num_kv_heads(static_cast<std::int32_t>(view_.num_kv_heads));
  v1::AttentionOptions& options = *complete.mutable_options();
  ClearPerHeadTensors(options);
  if (!options.has_scale()) {
    options.set_scale(1 / std::sqrt(static_cast<double>(description_.head_dim())));
  }
  const NormView& norm = view_.query_norm.weight != nullptr ? view_.query_norm : view_.key_norm;
  if (norm.weight != nullptr) {
    complete.set_norm_kind(norm.kind == NormKind::kLayer ? v1::NORM_KIND_LAYER : v1::NORM_KIND_RMS);
    const double by_kind = norm.kind == NormKind::kLayer ? 1e-5 : 1e-6;
    if (!complete.has_norm_epsilon()) complete.set_norm_epsilon(by_kind);
  } else {  // What a model's file says is about other norms then.
    complete.clear_norm_kind();
    complete.clear_norm_epsilon();
    complete.clear_norm_adds_one();
    complete.clear_norm_after_rotary();
  }
  if (!CheckRotaryHasEffect(complete).ok()) {  // A stored layer's: what is described here may be given again.
    complete.mutable_rotary_embedding()->clear_original_context_length();
  }
  AddFloatFields(complete);
}

void Layer::DescribeWeights() {
  std::map<DataType, std::int64_t> bytes;
  for (const LinearView* linear : {&view_.query, &view_.key, &view_.value, &view_.output}) {
    if (!linear->present()) continue;
    bytes[linear->weight_type] += WeightBytes(*linear);
    if (linear->bias == nullptr) continue;
    description_.set_has_bias(true);
    bytes[linear->bias_type] += linear->out_features * ElementSize(linear->bias_type);
  }
  std::vector<std::pair<std::int64_t, DataType>> shares;
  shares.reserve(bytes.size());
  for (const auto& [type, size] : bytes) shares.emplace_back(size, type);
  std::sort(shares.rbegin(), shares.rend());
  for (const auto& [size, type] : shares) {
    description_.add_weight_types(ToWire(type));
    description_.set_weight_bytes(description_.weight_bytes() + size);
  }
}

// Its caller may have written much of it, also what has no effect.
void Layer::CountConfig() {
  const v1::LayerConfig& config = description_.config();
  const std::size_t bytes =
      config.ByteSizeLong() + kBytesOfName * static_cast<std::size_t>(config.ignored_tensors_size());
  if (bytes <= kUncountedConfigBytes) return;
  description_.set_memory_bytes(description_.memory_bytes() + static_cast<std::int64_t>(bytes));
}

}  // namespace attend::server
