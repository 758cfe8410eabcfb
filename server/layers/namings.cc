#include "server/layers/namings.h"

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "formats/naming_search.h"
#include "server/layers/layer_config.h"
#include "server/layers/weight_reader.h"

namespace attend::server {
namespace {

constexpr std::int64_t kMaxHeads = 1024;

// How many heads fused weights are cut for.
struct Heads {
  std::int64_t query = 0;      // 0: not known.
  std::int64_t key_value = 0;  // As `query` when not given.
};

absl::StatusOr<Heads> CheckHeads(const v1::LayerConfig& config, const formats::Naming& naming) {
  const Heads heads{config.num_heads(), config.num_kv_heads() == 0 ? config.num_heads() : config.num_kv_heads()};
  if (heads.query < 0 || heads.query > kMaxHeads) {
    return InvalidField("config.num_heads",
                        absl::StrCat("config.num_heads is ", heads.query, "; it must be between 1 and ", kMaxHeads));
  }
  if (heads.key_value < 0 || heads.key_value > heads.query || (heads.query > 0 && heads.query % heads.key_value != 0)) {
    return InvalidField("config.num_kv_heads",
                        absl::StrCat("config.num_kv_heads is ", heads.key_value,
                                     "; it must be at least 1 and divide config.num_heads, which is ", heads.query));
  }
  if (heads.query == 0 && !naming.one_head) {
    return InvalidField("config.num_heads",
                        absl::StrCat("config.num_heads is not set: weights named as ", std::string(naming.name),
                                     "'s are a model's with several heads, and nothing says how many there are; set it "
                                     "(at a server's start --layer-config 'NAME={\"num_heads\": 12}', or config.json "
                                     "beside the file), also when it is 1"));
  }
  return heads;
}

absl::Status NotCut(const std::string& name, std::int64_t rows, const Heads& heads) {
  return InvalidField("config.num_heads",
                      absl::StrCat("'", name, "' has ", rows, " outputs, which are not those of ", heads.query,
                                   " query heads, ", heads.key_value, " key heads and as many value heads"));
}

// Query, key and value of one fused matrix.
absl::StatusOr<std::array<LinearView, 3>> CutFused(const std::string& name, const LinearView& fused,
                                                   formats::Fusion fusion, const Heads& heads, WeightReader& reader) {
  const std::int64_t rows = fused.out_features;
  if (fusion == formats::Fusion::kRows && heads.query == heads.key_value && rows % 3 == 0) {
    const std::int64_t third = rows / 3;
    return std::array{CutRows(fused, 0, third), CutRows(fused, third, third), CutRows(fused, 2 * third, third)};
  }
  const std::int64_t all_heads = heads.query + 2 * heads.key_value;
  if (heads.query < 1 || heads.key_value < 1 || rows % all_heads != 0) return NotCut(name, rows, heads);
  const std::int64_t head_dim = rows / all_heads;
  if (fusion == formats::Fusion::kRows) {
    const std::int64_t query_rows = heads.query * head_dim, key_rows = heads.key_value * head_dim;
    return std::array{CutRows(fused, 0, query_rows), CutRows(fused, query_rows, key_rows),
                      CutRows(fused, query_rows + key_rows, key_rows)};
  }
  const std::int64_t group = heads.query / heads.key_value;
  return std::array{reader.CutGroups(fused, head_dim, group + 2, 0, group),
                    reader.CutGroups(fused, head_dim, group + 2, group, 1),
                    reader.CutGroups(fused, head_dim, group + 2, group + 1, 1)};
}

// Query, key and value that have matrices of their own, with biases of their own or one for all three.
absl::StatusOr<std::array<LinearView, 3>> ReadSeparate(const formats::Checkpoint& checkpoint,
                                                       const formats::NamingFit& fit, WeightReader& reader) {
  const formats::Naming& naming = *fit.naming;
  const std::string_view names[] = {naming.query, naming.key, naming.value};
  std::array<LinearView, 3> linears;
  std::int64_t rows = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    const absl::StatusOr<LinearView> linear = reader.Linear(fit.Weight(names[i]), fit.Bias(names[i]), false);
    if (!linear.ok()) return linear.status();
    linears[i] = *linear;
    rows += linear->out_features;
  }
  const std::string bias_name = absl::StrCat(fit.module, std::string(naming.fused_bias));
  if (naming.fused_bias.empty() || checkpoint.Find(bias_name) == nullptr) return linears;
  const absl::StatusOr<NormView> bias = reader.Norm(bias_name, "");
  if (!bias.ok()) return bias.status();
  if (bias->size != rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor '", bias_name, "' has ", bias->size, " elements; ", rows, " are expected"));
  }
  const float* next = bias->weight;
  for (LinearView& linear : linears) {
    linear.bias = next;
    next += linear.out_features;
  }
  return linears;
}

absl::Status ReadProjections(const formats::Checkpoint& checkpoint, const formats::NamingFit& fit, const Heads& heads,
                             WeightReader& reader, LayerWeights& weights) {
  const formats::Naming& naming = *fit.naming;
  absl::StatusOr<std::array<LinearView, 3>> linears;
  if (naming.fusion == formats::Fusion::kNone) {
    linears = ReadSeparate(checkpoint, fit, reader);
  } else {
    const std::string name = fit.Weight(naming.query);
    const absl::StatusOr<LinearView> fused = reader.Linear(name, fit.Bias(naming.query), naming.transposed);
    if (!fused.ok()) return fused.status();
    linears = CutFused(name, *fused, naming.fusion, heads, reader);
  }
  if (!linears.ok()) return linears.status();
  weights.query = (*linears)[0];
  weights.key = (*linears)[1];
  weights.value = (*linears)[2];
  if (fit.output.empty()) return absl::OkStatus();
  const absl::StatusOr<LinearView> output =
      reader.Linear(fit.Name(fit.output, ".", "weight"), fit.Name(fit.output, ".", "bias"), naming.transposed);
  if (!output.ok()) return output.status();
  weights.output = *output;
  return absl::OkStatus();
}

absl::StatusOr<NormView> ReadNorm(const formats::NamingFit& fit, std::string_view norm, WeightReader& reader) {
  if (norm.empty()) return NormView();
  return reader.Norm(fit.Name(norm, ".", "weight"), fit.Name(norm, ".", "bias"));
}

// Refuses what would be left out in silence although it changes the result: norms that were not read, and what the
// naming lists.
absl::Status CheckNothingIsLost(const formats::Checkpoint& checkpoint, const formats::NamingFit& fit) {
  for (const std::string_view name : fit.naming->refused) {
    const std::string full = absl::StrCat(fit.module, std::string(name));
    if (checkpoint.Find(full) == nullptr) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("the layer has '", full, "', which changes what it computes and is not supported"));
  }
  if (fit.naming->query_norm.empty()) return absl::OkStatus();
  const std::string query_norm = fit.Name(fit.naming->query_norm, ".", "");
  const std::string key_norm = fit.Name(fit.naming->key_norm, ".", "");
  for (auto i = checkpoint.tensors().lower_bound(fit.module); i != checkpoint.tensors().end(); ++i) {
    const std::string& name = i->first;
    if (!absl::StartsWith(name, fit.module)) break;
    const std::string rest = name.substr(fit.module.size());
    const bool in_query_or_key = absl::StartsWith(rest, "q_") || absl::StartsWith(rest, "k_");
    if (!in_query_or_key || !absl::StrContains(rest, "norm")) continue;
    if (name == query_norm + "weight" || name == query_norm + "bias") continue;
    if (name == key_norm + "weight" || name == key_norm + "bias") continue;
    return absl::InvalidArgumentError(absl::StrCat("the layer has the norm '", name, "', which is not supported"));
  }
  return absl::OkStatus();
}

// gpt-oss keeps a logit for each head beside the projections.
absl::Status ReadSinks(const formats::Checkpoint& checkpoint, const formats::NamingFit& fit, const WeightReader& reader,
                       v1::LayerConfig& config) {
  const std::string name = absl::StrCat(fit.module, "sinks");
  if (checkpoint.Find(name) == nullptr) return absl::OkStatus();
  const absl::StatusOr<std::vector<float>> sinks = reader.Floats(name);
  if (!sinks.ok()) return sinks.status();
  v1::Tensor& tensor = *config.mutable_options()->mutable_sinks();
  tensor.set_data_type(v1::DATA_TYPE_FLOAT32);
  tensor.add_shape(static_cast<std::int64_t>(sinks->size()));
  tensor.mutable_values()->Assign(sinks->begin(), sinks->end());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LayerWeights> FindLayer(const formats::Checkpoint& checkpoint, std::string_view prefix,
                                       const v1::LayerConfig& caller, const v1::LayerConfig& beside) {
  const absl::StatusOr<formats::NamingFit> fit = formats::FindNaming(checkpoint, prefix);
  if (!fit.ok()) return fit.status();
  if (absl::Status status = CheckNothingIsLost(checkpoint, *fit); !status.ok()) return status;
  const absl::StatusOr<v1::LayerConfig> metadata = LayerConfigOfMetadata(checkpoint.metadata());
  if (!metadata.ok()) return metadata.status();

  LayerWeights weights;
  weights.naming = std::string(fit->naming->name);
  if (fit->naming->unit_scale) weights.config.mutable_options()->set_scale(1);
  WeightReader reader(checkpoint);
  if (absl::Status status = ReadSinks(checkpoint, *fit, reader, weights.config); !status.ok()) return status;
  weights.config = MergeLayerConfig(MergeLayerConfig(weights.config, beside), *metadata);
  const absl::StatusOr<Heads> heads = CheckHeads(MergeLayerConfig(weights.config, caller), *fit->naming);
  if (!heads.ok()) return heads.status();

  if (absl::Status status = ReadProjections(checkpoint, *fit, *heads, reader, weights); !status.ok()) return status;
  const absl::StatusOr<NormView> query_norm = ReadNorm(*fit, fit->naming->query_norm, reader);
  if (!query_norm.ok()) return query_norm.status();
  const absl::StatusOr<NormView> key_norm = ReadNorm(*fit, fit->naming->key_norm, reader);
  if (!key_norm.ok()) return key_norm.status();
  weights.query_norm = *query_norm;
  weights.key_norm = *key_norm;
  weights.memory = reader.TakeMemory();
  return weights;
}

}  // namespace attend::server
