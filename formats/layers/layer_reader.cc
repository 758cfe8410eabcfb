#include "formats/layers/layer_reader.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "formats/hugging_face/hugging_face_config.h"
#include "formats/layers/layer_settings.h"
#include "formats/layers/leftover_tensors.h"
#include "formats/layers/naming_search.h"

namespace attend::formats {
namespace {

constexpr std::int64_t kMaxHeads = 1024;
constexpr const char* kSinks[] = {"sinks", "softmax_offset"};

// How many heads fused weights are cut for.
struct Heads {
  std::int64_t query = 0;      // 0: not known.
  std::int64_t key_value = 0;  // As `query` when not given.
};

absl::StatusOr<Heads> CheckHeads(const CallerSettings& caller, const LayerSettings& known, const Naming& naming,
                                 bool has_config) {
  Heads heads;
  heads.query = caller.num_heads != 0 ? caller.num_heads : known.num_heads.value.value_or(0);
  heads.key_value = caller.num_kv_heads != 0 ? caller.num_kv_heads : known.num_kv_heads.value.value_or(heads.query);
  if (heads.query < 0 || heads.query > kMaxHeads) {
    return FieldError("config.num_heads",
                      absl::StrCat("config.num_heads is ", heads.query, "; it must be between 1 and ", kMaxHeads));
  }
  if (heads.query == 0 && (!naming.one_head || has_config)) {
    return FieldError("config.num_heads",
                      absl::StrCat("config.num_heads is not set: weights named as ", std::string(naming.name),
                                   "'s are a model's with several heads, and nothing says how many there are; set it "
                                   "(at a server's start --layer-config 'NAME={\"num_heads\": 12}', or config.json "
                                   "beside the file), also when it is 1"));
  }
  const bool divides =
      heads.query == 0 ? heads.key_value == 0 : heads.key_value >= 1 && heads.query % heads.key_value == 0;
  if (!divides) {
    return FieldError("config.num_kv_heads",
                      absl::StrCat("config.num_kv_heads is ", heads.key_value,
                                   "; it must be at least 1 and divide config.num_heads, which is ", heads.query));
  }
  return heads;
}

absl::Status NotCut(const std::string& name, std::int64_t rows, const Heads& heads) {
  return FieldError("config.num_heads",
                    absl::StrCat("'", name, "' has ", rows, " outputs, which are not those of ", heads.query,
                                 " query heads, ", heads.key_value, " key heads and as many value heads"));
}

using Projections = std::array<LinearWeights, 3>;  // Query, key, value.

// Blocks first .. first + count of each group (WeightReader::CutGroups).
struct Cut {
  std::int64_t first;
  std::int64_t count;
};

// Those of query, key and value.
absl::StatusOr<Projections> CutAll(const LinearWeights& fused, std::int64_t block, std::int64_t period,
                                   const std::array<Cut, 3>& cuts, WeightReader& reader) {
  Projections linears;
  for (std::size_t i = 0; i < linears.size(); ++i) {
    const absl::StatusOr<LinearWeights> cut = reader.CutGroups(fused, block, period, cuts[i].first, cuts[i].count);
    if (!cut.ok()) return cut.status();
    linears[i] = *cut;
  }
  return linears;
}

absl::StatusOr<Projections> CutFused(const std::string& name, const LinearWeights& fused, Fusion fusion,
                                     const Heads& heads, WeightReader& reader) {
  const std::int64_t rows = fused.out_features;
  if (fusion == Fusion::kFourths) {
    if (heads.query < 1 || heads.query % 4 != 0 || rows % (3 * heads.query) != 0) return NotCut(name, rows, heads);
    return CutAll(fused, rows / 12, 3, {{{0, 1}, {2, 1}, {1, 1}}}, reader);
  }
  if (fusion == Fusion::kBigCode) fusion = heads.key_value == 1 ? Fusion::kRows : Fusion::kGroups;
  if (fusion == Fusion::kRows && heads.query == heads.key_value && rows % 3 == 0) {
    const std::int64_t third = rows / 3;
    return Projections{CutRows(fused, 0, third), CutRows(fused, third, third), CutRows(fused, 2 * third, third)};
  }
  const std::int64_t all_heads = heads.query + 2 * heads.key_value;
  if (heads.query < 1 || heads.key_value < 1 || rows % all_heads != 0) return NotCut(name, rows, heads);
  const std::int64_t head_dim = rows / all_heads;
  if (fusion == Fusion::kRows) {
    const std::int64_t query_rows = heads.query * head_dim, key_rows = heads.key_value * head_dim;
    return Projections{CutRows(fused, 0, query_rows), CutRows(fused, query_rows, key_rows),
                       CutRows(fused, query_rows + key_rows, key_rows)};
  }
  const std::int64_t group = heads.query / heads.key_value;
  return CutAll(fused, head_dim, group + 2, {{{0, group}, {group, 1}, {group + 1, 1}}}, reader);
}

// One bias for three matrices, cut for each.
absl::Status AddFusedBias(const std::string& name, Projections& linears, WeightReader& reader) {
  LinearWeights all;
  for (const LinearWeights& linear : linears) all.out_features += linear.out_features;
  if (absl::Status status = reader.AddBias(name, all); !status.ok()) return status;
  const auto* next = static_cast<const std::uint8_t*>(all.bias);
  for (LinearWeights& linear : linears) {
    linear.bias = next;
    linear.bias_type = all.bias_type;
    next += linear.out_features * SizeOf(all.bias_type);
  }
  return absl::OkStatus();
}

// Query, key and value that have matrices of their own, with biases of their own or one for all three.
absl::StatusOr<Projections> ReadSeparate(const Checkpoint& checkpoint, const NamingFit& fit, WeightReader& reader) {
  const Naming& naming = *fit.naming;
  const std::string_view names[] = {naming.query, naming.key, naming.value};
  Projections linears;
  for (std::size_t i = 0; i < 3; ++i) {
    const absl::StatusOr<LinearWeights> linear = reader.Linear(fit.Weight(names[i]), fit.Bias(names[i]), false);
    if (!linear.ok()) return linear.status();
    linears[i] = *linear;
  }
  const std::string bias = absl::StrCat(fit.module, std::string(naming.fused_bias));
  if (naming.fused_bias.empty() || checkpoint.Find(bias) == nullptr) return linears;
  if (absl::Status status = AddFusedBias(bias, linears, reader); !status.ok()) return status;
  return linears;
}

absl::StatusOr<Projections> ReadQueryKeyValue(const Checkpoint& checkpoint, const NamingFit& fit, const Heads& heads,
                                              WeightReader& reader) {
  const Naming& naming = *fit.naming;
  absl::StatusOr<Projections> linears;
  if (naming.fusion == Fusion::kNone) {
    linears = ReadSeparate(checkpoint, fit, reader);
  } else {
    const std::string name = fit.Weight(naming.query);
    const absl::StatusOr<LinearWeights> fused = reader.Linear(name, fit.Bias(naming.query), naming.transposed);
    if (!fused.ok()) return fused.status();
    linears = CutFused(name, *fused, naming.fusion, heads, reader);
  }
  if (!linears.ok() || !naming.has_separate_biases) return linears;
  constexpr const char* kBiases[] = {"q_bias", "k_bias", "v_bias"};
  const std::size_t dot = naming.query.rfind('.');
  const std::string beside(dot == std::string_view::npos ? "" : naming.query.substr(0, dot + 1));
  for (std::size_t i = 0; i < 3; ++i) {
    absl::Status status = reader.AddBias(absl::StrCat(fit.module, beside, kBiases[i]), (*linears)[i]);
    if (!status.ok()) return status;
  }
  return linears;
}

absl::Status ReadProjections(const Checkpoint& checkpoint, const NamingFit& fit, const Heads& heads,
                             WeightReader& reader, AttentionLayer& layer) {
  const absl::StatusOr<Projections> linears = ReadQueryKeyValue(checkpoint, fit, heads, reader);
  if (!linears.ok()) return linears.status();
  layer.query = (*linears)[0];
  layer.key = (*linears)[1];
  layer.value = (*linears)[2];
  if (fit.output.empty()) return absl::OkStatus();
  const absl::StatusOr<LinearWeights> output =
      reader.Linear(fit.Name(fit.output, ".", "weight"), fit.Name(fit.output, ".", "bias"), fit.naming->transposed);
  if (!output.ok()) return output.status();
  layer.output = *output;
  return absl::OkStatus();
}

// GPT-2's matrices are transposed; those of other models with its names are not.
absl::Status CheckLiesAcross(const Checkpoint& checkpoint, const NamingFit& fit) {
  if (!fit.naming->transposed || fit.output.empty()) return absl::OkStatus();
  const CheckpointTensor& fused = *checkpoint.Find(fit.Weight(fit.naming->query));
  const CheckpointTensor& output = *checkpoint.Find(fit.Name(fit.output, ".", "weight"));
  if (fused.shape.size() != 2 || output.shape.size() != 2 || fused.shape[0] == output.shape[1]) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("'", fit.Weight(fit.naming->query), "' has ", fused.shape[0], " rows and '",
                   fit.Name(fit.output, ".", "weight"), "' ", output.shape[1],
                   " columns; in GPT-2's naming both are the embedding size. Weights of GPT-BigCode are read "
                   "with its config.json beside the file"));
}

absl::Status ReadNorms(const Checkpoint& checkpoint, const NamingFit& fit, WeightReader& reader,
                       AttentionLayer& layer) {
  for (const NormNames& names : fit.naming->norms) {
    const std::string query = fit.Name(names.query, ".", "weight"), key = fit.Name(names.key, ".", "weight");
    if (checkpoint.Find(query) == nullptr && checkpoint.Find(key) == nullptr) continue;
    const absl::StatusOr<NormWeights> query_norm = reader.Norm(query, fit.Name(names.query, ".", "bias"));
    if (!query_norm.ok()) return query_norm.status();
    const absl::StatusOr<NormWeights> key_norm = reader.Norm(key, fit.Name(names.key, ".", "bias"));
    if (!key_norm.ok()) return key_norm.status();
    layer.query_norm = *query_norm;
    layer.key_norm = *key_norm;
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

// gpt-oss and Flint keep a logit for each head beside the projections.
absl::Status ReadSinks(const Checkpoint& checkpoint, const NamingFit& fit, WeightReader& reader,
                       LayerSettings& settings) {
  for (const char* const last : kSinks) {
    const std::string name = absl::StrCat(fit.module, last);
    if (checkpoint.Find(name) == nullptr) continue;
    absl::StatusOr<std::vector<float>> sinks = reader.Floats(name, kMaxHeads);
    if (!sinks.ok()) return sinks.status();
    settings.sinks.Set(*std::move(sinks), absl::StrCat("tensor ", name));
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

// Refuses a mismatch between the file's tensors and the model's code: norms that only one of them has.
absl::Status CheckModelHas(ModelConfig& config, const AttentionLayer& layer, const CallerSettings& caller) {
  if (config.rules() == nullptr || caller.norms) return absl::OkStatus();
  const bool has_norms = layer.query_norm.weight != nullptr || layer.key_norm.weight != nullptr;
  const bool may_have = layer.settings.norm_epsilon.value.has_value();
  for (const char* const key : {"use_qk_norm", "qk_layernorm"}) {
    if (!config.Reads(key)) continue;
    const bool says = config.Boolean(key).value_or(false);  // Null counts as false.
    if (says != has_norms) {
      config.Fail(key, absl::StrCat("is ", says ? "true" : "false", ", but the file has ", has_norms ? "" : "no ",
                                    "norms of query and key"));
    }
    return config.status();
  }
  if (!has_norms || may_have) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the layer has norms of query and key, which ", config.model_type(),
                                                 " models do not have. Set norm_kind and norm_epsilon in the layer's "
                                                 "configuration"));
}

// RoFormer's checkpoint has the sines and cosines of its rotary embedding as a weight, which may have been trained:
// sines of all pairs, then cosines, for each position. They must be those that would be computed.
absl::Status CheckRotaryTable(const Checkpoint& checkpoint, std::int64_t head_dim) {
  constexpr double kTolerance = 0.01;  // Above what BF16 rounds.
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    if (!absl::EndsWith(name, "embed_positions.weight") || tensor.shape.size() != 2) continue;
    const std::optional<WeightType> type = WeightTypeOf(tensor.dtype);
    bool is_known = type && head_dim % 2 == 0 && tensor.shape[1] == head_dim;
    for (std::int64_t i = 0; is_known && i < tensor.shape[0] * head_dim; ++i) {
      const std::int64_t column = i % head_dim, half = head_dim / 2, pair = column % half;
      const double turn = std::pow(10000, -2 * static_cast<double>(pair) / static_cast<double>(head_dim));
      const std::int64_t position = i / head_dim;
      const double angle = static_cast<double>(position) * turn;
      const double expected = column < half ? std::sin(angle) : std::cos(angle);
      is_known = std::abs(double{FloatAt(tensor.data, *type, i)} - expected) <= kTolerance;
    }
    if (is_known) continue;
    return absl::InvalidArgumentError(absl::StrCat("the tensor '", name.substr(0, 200),
                                                   "' has other numbers than the sines and cosines of a rotary "
                                                   "embedding, which is not supported"));
  }
  return absl::OkStatus();
}

absl::Status ScaleNotSaid(const std::string& who) {
  return FieldError("config.options.scale",
                    absl::StrCat("config.options.scale is not set: weights ", who,
                                 ", whose scores are not scaled, or another model's, and nothing says which; set it (1 "
                                 "for scores that are not scaled)"));
}

// T5 and GPT-Neo do not divide their scores by sqrt(E). Others have T5's short names, or GPT-Neo's, and do: without the
// model's config.json only T5's module says which.
absl::Status SetNamingsScale(const NamingFit& fit, const LayerRequest& request, LayerSettings& settings) {
  if (request.caller.scale || request.config_json) return absl::OkStatus();
  if (fit.naming->name == "opt" && absl::EndsWith(fit.module, "attn.attention.")) {
    if (request.is_stored) {
      settings.notes.emplace_back(
          "a scale of 1/sqrt(E), as until now (assumed: a GPT-Neo has 1, and nothing says which it is)");
      return absl::OkStatus();
    }
    return ScaleNotSaid(absl::StrCat("named q_proj, k_proj, v_proj and out_proj in '", fit.module, "' are GPT-Neo's"));
  }
  if (!fit.naming->unit_scale) return absl::OkStatus();
  if (absl::EndsWith(fit.module, "SelfAttention.") || absl::EndsWith(fit.module, "EncDecAttention.")) {
    settings.scale.Set(1, absl::StrCat("naming ", std::string(fit.naming->name)));
    return absl::OkStatus();
  }
  if (request.is_stored && fit.module.empty()) {
    settings.scale.Set(1, absl::StrCat("naming ", std::string(fit.naming->name)));
    settings.notes.emplace_back(
        "a scale of 1, as until now (assumed: models but T5 have others, and nothing says which it is)");
    return absl::OkStatus();
  }
  const std::string where = fit.module.empty() ? "without a module's name" : absl::StrCat("in '", fit.module, "'");
  return ScaleNotSaid(absl::StrCat("named q, k, v and o ", where, " are T5's"));
}

// Notes the assumptions that nothing confirms and that might be wrong.
void NoteAssumptions(const AttentionLayer& layer, const CallerSettings& caller, bool has_config,
                     std::vector<std::string>& notes) {
  std::vector<std::string> assumed;
  if (!caller.causal && !layer.settings.causal) assumed.emplace_back("not causal");
  if (!caller.rotary && !layer.settings.rotary) assumed.emplace_back("no rotary embedding");
  const bool has_norms = layer.query_norm.weight != nullptr || layer.key_norm.weight != nullptr;
  if (has_norms && !caller.norms && !layer.settings.norm_kind) {
    const bool by_layer = layer.query_norm.bias != nullptr || layer.key_norm.bias != nullptr;
    assumed.emplace_back(by_layer ? "layer norms with epsilon 1e-05" : "RMS norms with epsilon 1e-06");
  }
  if (!has_config && layer.naming == "gpt-neox") assumed.emplace_back("rows of query_key_value as GPT-NeoX has them");
  if (assumed.empty()) return;
  notes.push_back(absl::StrCat(absl::StrJoin(assumed, ", "), " (assumed: nothing says otherwise)"));
}

}  // namespace

absl::StatusOr<AttentionLayer> ReadLayer(const Checkpoint& checkpoint, const LayerRequest& request) {
  const CallerSettings& caller = request.caller;
  std::optional<ModelConfig> config;
  if (request.config_json) {
    // The whole prefix is not known yet; it says which part of the model is meant.
    absl::StatusOr<ModelConfig> parsed = ModelConfig::Parse(*request.config_json, request.prefix);
    // Before names of tensors are looked for, which such a type may have of its own.
    const absl::Status status = parsed.ok() ? CheckModelType(*parsed) : parsed.status();
    if (!status.ok()) return absl::InvalidArgumentError(absl::StrCat(request.config_name, ": ", status.message()));
    config.emplace(*std::move(parsed));
  }
  const absl::StatusOr<NamingFit> fit =
      FindNaming(checkpoint, request.prefix, config ? std::string_view(config->model_type()) : std::string_view());
  if (!fit.ok()) return fit.status();
  AttentionLayer layer;
  layer.naming = std::string(fit->naming->name);
  layer.module = fit->module;
  absl::Status status = SetNamingsScale(*fit, request, layer.settings);
  if (!status.ok()) return status;
  if (config) {
    status = ReadModelHeads(*config, fit->module, caller, layer.settings);
  }
  if (!status.ok()) return absl::InvalidArgumentError(absl::StrCat(request.config_name, ": ", status.message()));
  const absl::StatusOr<Heads> heads = CheckHeads(caller, layer.settings, *fit->naming, config.has_value());
  if (!heads.ok()) return heads.status();

  WeightReader reader(checkpoint, request.may_copy);
  if (status = CheckLiesAcross(checkpoint, *fit); !status.ok()) return status;
  if (status = ReadProjections(checkpoint, *fit, *heads, reader, layer); !status.ok()) return status;
  if (status = ReadNorms(checkpoint, *fit, reader, layer); !status.ok()) return status;
  if (status = ReadSinks(checkpoint, *fit, reader, layer.settings); !status.ok()) return status;
  if (status = CheckNothingIsLost(checkpoint, *fit, caller, reader.read()); !status.ok()) return status;
  if (config) {
    const std::int64_t num_heads = std::max<std::int64_t>(heads->query, 1);
    const bool divides = layer.query.out_features % num_heads == 0;
    status = ReadModelConfig(*config, fit->module, divides ? layer.query.out_features / num_heads : 0, num_heads,
                             caller, layer.settings);
    if (status.ok()) status = CheckModelHas(*config, layer, caller);
    if (status.ok() && config->HasTrait(kRotaryTable) && !caller.rotary) {
      status = CheckRotaryTable(checkpoint, layer.query.out_features / num_heads);
    }
    if (!status.ok()) return absl::InvalidArgumentError(absl::StrCat(request.config_name, ": ", status.message()));
  }
  if (status = CheckRotaryIsSaid(checkpoint, fit->module, caller, layer.settings); !status.ok()) return status;
  NoteAssumptions(layer, caller, config.has_value(), layer.settings.notes);
  layer.tensors.assign(reader.read().begin(), reader.read().end());
  layer.memory = reader.TakeMemory();
  return layer;
}

}  // namespace attend::formats
