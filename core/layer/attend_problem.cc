#include "core/layer/attend_problem.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/checked_product.h"
#include "core/base/error.h"
#include "core/compute/scratch_bytes.h"
#include "core/layer/validate_norm_rotary.h"
#include "core/problem/key_visibility.h"
#include "core/problem/option_table.h"
#include "core/problem/sequences.h"
#include "core/problem/validate_options.h"

namespace attend {
namespace {

constexpr std::int64_t kMaxHeads = 1024;
// Of one element of a norm, and of one sine with its cosine.
constexpr double kNormFlops = 8;
constexpr double kAngleFlops = 50;

// `name` is `embeddings` or `context`.
absl::Status ValidateEmbeddings(const EmbeddingsView& view, const char* name) {
  const bool is_empty = view.batch < 1 || view.length < 1 || view.dim < 1;
  if (!is_empty && IsTensorSize({view.batch, view.length, view.dim})) return absl::OkStatus();
  const std::string shape = absl::StrCat(name, ".shape");
  if (is_empty) {
    return InvalidField(shape, absl::StrCat(shape, " has ", view.batch, " batch entries, ", view.length,
                                            " tokens and embedding size ", view.dim, "; each must be at least 1"));
  }
  return InvalidField(shape, absl::StrCat(shape, " describes more elements than any machine can hold; send less"));
}

// `field` is that of a tensor.
absl::Status ValidateType(const char* field, DataType type, DataType embeddings_type) {
  if (IsFloatingPoint(type) && (type == DataType::kFloat64) == (embeddings_type == DataType::kFloat64)) {
    return absl::OkStatus();
  }
  const std::string type_field = absl::StrCat(field, ".data_type");
  if (!IsFloatingPoint(type)) {
    return InvalidField(type_field, absl::StrCat(type_field, " is ", std::string(DataTypeName(type)),
                                                 "; it must be FLOAT32, FLOAT64, FLOAT16 or BFLOAT16"));
  }
  return InvalidField(
      type_field, absl::StrCat(type_field, " is ", std::string(DataTypeName(type)), ", but embeddings.data_type is ",
                               std::string(DataTypeName(embeddings_type)), "; FLOAT64 does not mix with other types"));
}

absl::Status ValidateHeadCounts(const LayerView& layer) {
  if (layer.num_heads < 1 || layer.num_heads > kMaxHeads) {
    return InvalidField("layer.num_heads",
                        absl::StrCat("layer.num_heads is ", layer.num_heads, "; it must be between 1 and ", kMaxHeads));
  }
  if (layer.num_kv_heads < 1 || layer.num_kv_heads > layer.num_heads || layer.num_heads % layer.num_kv_heads != 0) {
    return InvalidField("layer.num_kv_heads",
                        absl::StrCat("layer.num_kv_heads is ", layer.num_kv_heads,
                                     "; it must be at least 1 and divide layer.num_heads, which is ", layer.num_heads));
  }
  return absl::OkStatus();
}

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

absl::Status ValidateLayerTypes(const LayerView& layer, DataType embeddings_type) {
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
    if (p.linear.present()) status.Update(ValidateType(p.weight, p.linear.weight_type, embeddings_type));
    if (p.linear.bias != nullptr) status.Update(ValidateType(p.bias, p.linear.bias_type, embeddings_type));
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

absl::Status ValidateLayer(const LayerView& layer, std::int64_t query_in, std::int64_t context_in,
                           const char* context_name) {
  if (absl::Status s = ValidateHeadCounts(layer); !s.ok()) return s;
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

// Every tensor that computing the problem may hold stays addressable.
absl::Status ValidateResultSizes(const AttendProblem& problem) {
  const std::int64_t batch = problem.batch(), queries = problem.query_length(), keys = problem.key_length();
  const std::int64_t heads = problem.num_heads();
  if (IsTensorSize({batch, heads, queries, keys}) && IsTensorSize({batch, heads, queries, problem.head_dim()}) &&
      IsTensorSize({batch, heads, queries, problem.value_dim()}) &&
      IsTensorSize({batch, heads, keys, problem.head_dim()}) &&
      IsTensorSize({batch, heads, keys, problem.value_dim()}) && IsTensorSize({batch, queries, problem.output_dim()})) {
    return absl::OkStatus();
  }
  return InvalidField("embeddings.shape",
                      "embeddings.shape, context.shape and the layer together describe larger "
                      "results than any machine can hold; send fewer tokens");
}

double Product(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d = 1) {
  return static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c) * static_cast<double>(d);
}

// Positions of all tokens, angles, and each thread's sines and cosines.
double RotaryScratchBytes(const AttendProblem& problem, int num_threads) {
  const auto pairs = static_cast<double>(problem.layer()->rotary.frequencies.size());
  if (pairs == 0) return 0;
  const double tokens =
      Product(problem.batch(), problem.query_length(), 1) + Product(problem.batch(), problem.key_length(), 1);
  return 8 * tokens + 16 * pairs * (1 + num_threads);
}

}  // namespace

absl::StatusOr<AttendProblem> AttendProblem::Create(const Spec& spec) {
  AttendProblem problem(spec);
  Spec& s = problem.spec_;
  if (s.embeddings.data == nullptr) {
    return InvalidField("embeddings", "embeddings is missing; send the tokens that attend");
  }
  if (absl::Status status = ValidateEmbeddings(s.embeddings, "embeddings"); !status.ok()) return status;
  problem.has_context_ = s.context.data != nullptr;
  if (!problem.has_context_) {
    s.context = s.embeddings;
    s.options.query_lengths = s.options.key_lengths;
    if (s.options.cumulative_key_lengths.empty()) {
      s.options.cumulative_key_lengths = s.options.cumulative_query_lengths;
    }
  }
  if (absl::Status status = ValidateEmbeddings(s.context, "context"); !status.ok()) return status;
  for (absl::Status status : {ValidateType("embeddings", s.embeddings.type, s.embeddings.type),
                              ValidateType("context", s.context.type, s.embeddings.type)}) {
    if (!status.ok()) return status;
  }
  if (s.context.batch != s.embeddings.batch) {
    return InvalidField("context.shape",
                        absl::StrCat("context.shape has batch size ", s.context.batch, ", but embeddings.shape has ",
                                     s.embeddings.batch, "; they must be equal"));
  }
  if (s.layer) {
    const char* context_name = problem.has_context_ ? "context" : "embeddings";
    if (absl::Status status = ValidateLayer(*s.layer, s.embeddings.dim, s.context.dim, context_name); !status.ok()) {
      return status;
    }
    if (absl::Status status = ValidateLayerTypes(*s.layer, s.embeddings.type); !status.ok()) return status;
    problem.head_dim_ = s.layer->query.out_features / s.layer->num_heads;
    if (absl::Status status = ValidateNormsAndRotary(*s.layer, problem.head_dim_); !status.ok()) return status;
    problem.value_dim_ = s.layer->value.out_features / s.layer->num_kv_heads;
    problem.output_dim_ =
        s.layer->output.present() ? s.layer->output.out_features : s.layer->num_heads * problem.value_dim_;
  } else {
    if (s.context.dim != s.embeddings.dim) {
      return InvalidField("context.shape", absl::StrCat("context.shape has embedding size ", s.context.dim,
                                                        ", but embeddings.shape has ", s.embeddings.dim,
                                                        "; without a layer they must be equal"));
    }
    problem.head_dim_ = problem.value_dim_ = problem.output_dim_ = s.embeddings.dim;
  }
  if (absl::Status status = ValidatePositionOffset(s.position_offset); !status.ok()) return status;
  if (absl::Status status = ValidateResultSizes(problem); !status.ok()) return status;
  const AttentionShape shape{problem.batch(), problem.num_heads(), problem.query_length(), problem.key_length()};
  if (absl::Status status = ValidateOptions(shape, s.embeddings.type, s.options); !status.ok()) return status;
  problem.score_columns_ = ScoreColumns(s.options, problem.key_length());
  return problem;
}

void AttendProblem::Rebind(const Spec& spec) {
  spec_.embeddings.data = spec.embeddings.data;
  spec_.context.data = has_context_ ? spec.context.data : spec.embeddings.data;
  spec_.layer = spec.layer;
  RebindOptions(spec.options, spec_.options);
}

double AttendProblem::Flops() const {
  const AttentionShape shape{batch(), num_heads(), query_length(), key_length()};
  const double per_pair = 2 * (static_cast<double>(head_dim_) + static_cast<double>(value_dim_));
  double flops = per_pair * static_cast<double>(num_heads()) * VisiblePairs(spec_.options, shape);
  if (!spec_.layer) return flops;
  const LayerView& layer = *spec_.layer;
  flops += 2 * Product(batch(), query_length(), layer.query.in_features, layer.query.out_features);
  flops += 2 * Product(batch(), key_length(), layer.key.in_features, layer.key.out_features);
  flops += 2 * Product(batch(), key_length(), layer.value.in_features, layer.value.out_features);
  const double tokens = Product(batch(), query_length(), 1) + Product(batch(), key_length(), 1);
  const double heads = Product(batch(), query_length(), layer.query.out_features) +
                       Product(batch(), key_length(), layer.key.out_features);
  if (layer.query_norm.weight || layer.key_norm.weight) flops += kNormFlops * heads;
  if (!layer.rotary.frequencies.empty()) {
    flops += 3 * heads + kAngleFlops * tokens * static_cast<double>(layer.rotary.frequencies.size());
  }
  if (layer.output.present()) flops += 2 * Product(batch(), query_length(), layer.output.in_features, output_dim_);
  return flops;
}

double AttendProblem::ScratchBytes(int num_threads, bool consumes_weights) const {
  const DataType type = embeddings().type;
  const bool is_narrow = ElementSize(type) == 2 || ElementSize(context().type) == 2;
  const double attention = SdpaScratchBytes({.rows = query_length() * num_heads() / num_kv_heads(),
                                             .kv_heads = batch() * num_kv_heads(),
                                             .key_length = key_length(),
                                             .head_dim = head_dim_,
                                             .value_dim = value_dim_,
                                             .is_double = is_double(),
                                             .has_narrow = is_narrow,
                                             .consumes_weights = consumes_weights},
                                            num_threads);
  if (!spec_.layer) return attention;
  const LayerView& layer = *spec_.layer;
  double numbers = Product(batch(), query_length(), layer.query.out_features) +
                   Product(batch(), key_length(), layer.key.out_features) +
                   Product(batch(), key_length(), layer.value.out_features);
  if (layer.output.present()) numbers += Product(batch(), query_length(), layer.output.in_features);
  if (is_narrow) {  // Copies of the tokens, of biases, and of the output before it is narrowed.
    numbers += Product(batch(), query_length(), embeddings().dim) + Product(batch(), key_length(), context().dim) +
               Product(batch(), query_length(), output_dim_);
  }
  const std::int64_t widest_bias =
      std::max({layer.query.out_features, layer.key.out_features, layer.value.out_features, layer.output.out_features});
  const std::int64_t in_features = std::max({layer.query.in_features, layer.key.in_features, layer.value.in_features,
                                             layer.output.present() ? layer.output.in_features : 0});
  const double size = is_double() ? sizeof(double) : sizeof(float);
  return size * (numbers + static_cast<double>(widest_bias)) + attention + RotaryScratchBytes(*this, num_threads) +
         ProjectionScratchBytes(in_features, num_threads);
}

}  // namespace attend
