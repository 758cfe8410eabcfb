#include "core/layer/layer_view.h"

#include <cmath>
#include <cstddef>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "core/base/limits.h"

namespace attend {
namespace {

// What a projection's input and number of heads demand of its weight.
struct ProjectionRule {
  const char* weight;        // The field, `layer.key_projection.weight`.
  std::int64_t in_features;  // What the weight's second axis must be, and
  const char* input;         // where that comes from.
  std::int64_t heads;        // Must divide the weight's first axis, and
  const char* heads_field;   // where that comes from.
};

absl::Status ValidateProjection(const LinearView& linear, const ProjectionRule& rule) {
  if (!linear.present()) {
    return InvalidField(rule.weight, absl::StrCat(rule.weight,
                                                  " is missing; a layer needs the weights of its query, "
                                                  "key and value projections"));
  }
  const std::string shape = absl::StrCat(rule.weight, ".shape");
  if (!IsTensorSize({linear.out_features, linear.in_features}) || linear.out_features < 1 || linear.in_features < 1) {
    return InvalidField(shape, absl::StrCat(shape, " is [", linear.out_features, ", ", linear.in_features,
                                            "]; both axes must be at least 1 and fit in memory"));
  }
  if (linear.in_features != rule.in_features) {
    return InvalidField(shape,
                        absl::StrCat(shape, " is [", linear.out_features, ", ", linear.in_features,
                                     "]; its second axis must be ", rule.in_features, ", the size of ", rule.input,
                                     " (weights are [out_features, in_features], as torch.nn.Linear has them)"));
  }
  if (linear.out_features % rule.heads != 0) {
    return InvalidField(
        shape, absl::StrCat(shape, " is [", linear.out_features, ", ", linear.in_features,
                            "]; its first axis must be a multiple of ", rule.heads_field, ", which is ", rule.heads));
  }
  return absl::OkStatus();
}

absl::Status ValidateLayerTypes(const LayerView& layer, DataType other_type, const char* other_field) {
  const struct {
    const LinearView& linear;
    const char* weight;
    const char* bias;
  } projections[] = {
      {layer.query, "layer.query_projection.weight", "layer.query_projection.bias"},
      {layer.key, "layer.key_projection.weight", "layer.key_projection.bias"},
      {layer.value, "layer.value_projection.weight", "layer.value_projection.bias"},
      {layer.output, "layer.output_projection.weight", "layer.output_projection.bias"},
  };
  absl::Status status;
  for (const auto& p : projections) {
    if (p.linear.present()) status.Update(ValidateTensorType(p.weight, p.linear.weight_type, other_type, other_field));
    if (p.linear.bias != nullptr)
      status.Update(ValidateTensorType(p.bias, p.linear.bias_type, other_type, other_field));
  }
  return status;
}

absl::Status ValidateOutputProjection(const LayerView& layer, std::int64_t value_dim) {
  constexpr char kWeight[] = "layer.output_projection.weight";
  if (!layer.output.present()) {
    if (layer.output.bias == nullptr) return absl::OkStatus();
    return InvalidField(kWeight, absl::StrCat(kWeight,
                                              " is missing, but layer.output_projection.bias is given; send the "
                                              "weight too, or neither"));
  }
  const std::int64_t merged = layer.num_heads * value_dim;  // The caller has bounded both.
  return ValidateProjection(layer.output, {kWeight, merged, "all heads' values side by side", 1, "1"});
}

absl::Status ValidateProjections(const LayerView& layer, std::int64_t query_in, std::int64_t context_in,
                                 const char* context_name) {
  const std::int64_t heads = layer.num_heads, kv_heads = layer.num_kv_heads;
  const ProjectionRule rules[] = {
      {"layer.query_projection.weight", query_in, "embeddings", heads, "layer.num_heads"},
      {"layer.key_projection.weight", context_in, context_name, kv_heads, "layer.num_kv_heads"},
      {"layer.value_projection.weight", context_in, context_name, kv_heads, "layer.num_kv_heads"},
  };
  const LinearView linears[] = {layer.query, layer.key, layer.value};
  for (int i = 0; i < 3; ++i) {
    if (absl::Status s = ValidateProjection(linears[i], rules[i]); !s.ok()) return s;
  }
  const std::int64_t query_dim = layer.query.out_features / heads, key_dim = layer.key.out_features / kv_heads;
  if (query_dim != key_dim) {
    return InvalidField(
        "layer.key_projection.weight.shape",
        absl::StrCat("layer.key_projection.weight.shape gives each of ", kv_heads, " key heads the size ", key_dim,
                     ", but layer.query_projection.weight.shape gives each of ", heads, " query heads the size ",
                     query_dim, "; they must be equal"));
  }
  if (!IsTensorSize({heads, layer.value.out_features})) {
    return InvalidField("layer.value_projection.weight.shape",
                        "layer.value_projection.weight.shape is larger than any machine can use; send fewer rows");
  }
  return ValidateOutputProjection(layer, layer.value.out_features / kv_heads);
}

// `name` is `layer.query_norm` or `layer.key_norm`.
absl::Status ValidateNorm(const NormView& norm, const char* name, std::int64_t heads, std::int64_t head_dim) {
  const std::string weight = absl::StrCat(name, ".weight"), epsilon = absl::StrCat(name, ".epsilon");
  if (norm.weight == nullptr) {
    if (norm.bias == nullptr) return absl::OkStatus();
    return InvalidField(
        weight, absl::StrCat(weight, " is missing, but ", name, ".bias is given; send the weight too, or neither"));
  }
  if (norm.size != head_dim && norm.size != heads * head_dim) {
    const std::string shape = absl::StrCat(weight, ".shape");
    return InvalidField(shape, absl::StrCat(shape, " is [", norm.size, "]; it must be [", head_dim,
                                            "], one weight for each element of a head, or [", heads * head_dim,
                                            "], one for each element of all ", heads, " heads"));
  }
  if (!(norm.epsilon >= 0 && std::isfinite(norm.epsilon))) {
    return InvalidField(epsilon, absl::StrCat(epsilon, " is ", norm.epsilon, "; it must be finite and at least 0"));
  }
  return absl::OkStatus();
}

absl::Status ValidateRotary(const RotaryView& rotary, std::int64_t head_dim, std::string_view name) {
  const std::string field = absl::StrCat(std::string(name), ".frequencies");
  const auto pairs = static_cast<std::int64_t>(rotary.frequencies.size());
  if (pairs > head_dim / 2) {
    return InvalidField(
        field, absl::StrCat(field, " has ", pairs, " entries, which rotate ", 2 * pairs, " elements; a head has ",
                            head_dim, ", so there may be at most ", head_dim / 2));
  }
  if (!(rotary.factor > 0 && std::isfinite(rotary.factor))) {
    const std::string factor = absl::StrCat(std::string(name), ".factor");
    return InvalidField(factor, absl::StrCat(factor, " is ", rotary.factor, "; it must be positive and finite"));
  }
  for (std::size_t i = 0; i < rotary.frequencies.size(); ++i) {
    if (std::abs(rotary.frequencies[i]) <= kMaxRotaryFrequency) continue;  // Not so for NaN.
    const std::string element = absl::StrCat(field, "[", i, "]");
    return InvalidField(element, absl::StrCat(element, " is ", rotary.frequencies[i],
                                              "; it must be finite and between -2^64 and 2^64"));
  }
  return absl::OkStatus();
}

absl::Status ValidateNormsAndRotary(const LayerView& layer, std::int64_t head_dim, const char* rotary_name) {
  absl::Status status = ValidateNorm(layer.query_norm, "layer.query_norm", layer.num_heads, head_dim);
  if (!status.ok()) return status;
  status = ValidateNorm(layer.key_norm, "layer.key_norm", layer.num_kv_heads, head_dim);
  return status.ok() ? ValidateRotary(layer.rotary, head_dim, rotary_name) : status;
}

}  // namespace

absl::Status ValidateHeadCounts(const LayerView& layer, std::string_view owner) {
  const std::string heads = absl::StrCat(std::string(owner), ".num_heads");
  const std::string kv_heads = absl::StrCat(std::string(owner), ".num_kv_heads");
  if (layer.num_heads < 1 || layer.num_heads > kMaxHeads) {
    return InvalidField(heads, absl::StrCat(heads, " is ", layer.num_heads, "; it must be between 1 and ", kMaxHeads));
  }
  if (HeadsDivide(layer.num_heads, layer.num_kv_heads)) return absl::OkStatus();
  return InvalidField(kv_heads,
                      absl::StrCat(kv_heads, " is ", layer.num_kv_heads, "; it must be at least 1 and divide ", heads,
                                   ", which is ", layer.num_heads));
}

absl::Status ValidateLayer(const LayerView& layer, const LayerTokens& tokens, const LayerFieldNames& names) {
  const char* context_name = tokens.has_context ? "context" : "embeddings";
  if (absl::Status s = ValidateHeadCounts(layer, names.heads); !s.ok()) return s;
  if (absl::Status s = ValidateProjections(layer, tokens.query_dim, tokens.context_dim, context_name); !s.ok())
    return s;
  if (absl::Status s = ValidateLayerTypes(layer, tokens.type, names.other_type); !s.ok()) return s;
  return ValidateNormsAndRotary(layer, layer.query.out_features / layer.num_heads, names.rotary);
}

absl::Status ValidateTensorType(const char* field, DataType type, DataType other_type, const char* other_field) {
  if (IsFloatingPoint(type) && (type == DataType::kFloat64) == (other_type == DataType::kFloat64)) {
    return absl::OkStatus();
  }
  const std::string type_field = absl::StrCat(field, ".data_type");
  if (!IsFloatingPoint(type)) {
    return InvalidField(type_field, absl::StrCat(type_field, " is ", std::string(DataTypeName(type)),
                                                 "; it must be FLOAT32, FLOAT64, FLOAT16 or BFLOAT16"));
  }
  return InvalidField(type_field,
                      absl::StrCat(type_field, " is ", std::string(DataTypeName(type)), ", but ", other_field, " is ",
                                   std::string(DataTypeName(other_type)), "; FLOAT64 does not mix with other types"));
}

}  // namespace attend
