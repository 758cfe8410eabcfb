#include "client/cli/layer_file.h"

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/tensor_source.h"
#include "client/io/safetensors.h"

namespace attend::client {
namespace {

// One framework's names of the four projections.
struct Naming {
  const char* query;
  const char* key;
  const char* value;
  std::array<const char*, 2> outputs;
};
constexpr Naming kNamings[] = {
    {"query", "key", "value", {"output", "out_proj"}},
    {"q_proj", "k_proj", "v_proj", {"o_proj", "out_proj"}},
};
constexpr char kLookedFor[] =
    "query.weight, key.weight, value.weight; q_proj.weight, k_proj.weight, v_proj.weight; in_proj_weight; "
    "q_proj_weight, k_proj_weight, v_proj_weight";

// A file whose names all begin with a prefix.
struct Weights {
  SafetensorsReader* file;
  std::string prefix;

  bool Has(const std::string& name) const { return file->Contains(prefix + name); }

  absl::StatusOr<Tensor> Read(const std::string& name) const {
    absl::StatusOr<Tensor> tensor = file->Read(prefix + name);
    if (!tensor.ok() || IsFloatingPoint(tensor->type())) return tensor;
    return (*std::move(tensor)).ToFloat32();
  }
};

absl::Status ReadLinear(const Weights& weights, const std::string& name, v1::Linear* linear) {
  absl::StatusOr<Tensor> weight = weights.Read(absl::StrCat(name, ".weight"));
  if (!weight.ok()) return weight.status();
  if (absl::Status status = (*std::move(weight)).MoveTo(linear->mutable_weight()); !status.ok()) return status;
  if (!weights.Has(absl::StrCat(name, ".bias"))) return absl::OkStatus();
  absl::StatusOr<Tensor> bias = weights.Read(absl::StrCat(name, ".bias"));
  if (!bias.ok()) return bias.status();
  return (*std::move(bias)).MoveTo(linear->mutable_bias());
}

absl::Status ReadNamed(const Weights& weights, const Naming& naming, v1::AttentionLayer* layer) {
  absl::Status status = ReadLinear(weights, naming.query, layer->mutable_query_projection());
  status.Update(ReadLinear(weights, naming.key, layer->mutable_key_projection()));
  status.Update(ReadLinear(weights, naming.value, layer->mutable_value_projection()));
  for (const char* output : naming.outputs) {
    if (layer->has_output_projection() || !weights.Has(absl::StrCat(output, ".weight"))) continue;
    status.Update(ReadLinear(weights, output, layer->mutable_output_projection()));
  }
  return status;
}

std::array<v1::Linear*, 3> Projections(v1::AttentionLayer* layer) {
  return {layer->mutable_query_projection(), layer->mutable_key_projection(), layer->mutable_value_projection()};
}

// Cuts the first axis of `tensor` into three equal parts.
absl::StatusOr<std::array<Tensor, 3>> CutInThree(const std::string& name, const Tensor& tensor) {
  std::vector<std::int64_t> shape = tensor.shape();
  if (shape.empty() || shape[0] % 3 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(name, " has shape ", ShapeString(shape),
                                                   "; its first axis must hold query, key and value, a multiple of 3"));
  }
  shape[0] /= 3;
  std::array<Tensor, 3> parts;
  const std::size_t size = tensor.bytes().size() / 3;
  for (std::size_t i = 0; i < 3; ++i) {
    parts[i] = *Tensor::Create(tensor.type(), shape, tensor.bytes().substr(i * size, size));
  }
  return parts;
}

absl::StatusOr<std::array<Tensor, 3>> ReadStacked(const Weights& weights, const std::string& name) {
  const absl::StatusOr<Tensor> tensor = weights.Read(name);
  if (!tensor.ok()) return tensor.status();
  return CutInThree(name, *tensor);
}

// torch.nn.MultiheadAttention: the weights stacked, or apart when their input sizes differ; the biases always stacked.
absl::Status ReadMultihead(const Weights& weights, v1::AttentionLayer* layer) {
  if (weights.Has("bias_k") || weights.Has("bias_v")) {
    return absl::InvalidArgumentError("the layer has bias_k and bias_v (add_bias_kv=True), which attend does not have");
  }
  const std::array<v1::Linear*, 3> projections = Projections(layer);
  absl::StatusOr<std::array<Tensor, 3>> parts = std::array<Tensor, 3>();
  if (weights.Has("in_proj_weight")) {
    parts = ReadStacked(weights, "in_proj_weight");
  } else {
    constexpr const char* kNames[] = {"q_proj_weight", "k_proj_weight", "v_proj_weight"};
    for (std::size_t i = 0; i < 3; ++i) {
      absl::StatusOr<Tensor> tensor = weights.Read(kNames[i]);
      if (!tensor.ok()) return tensor.status();
      (*parts)[i] = *std::move(tensor);
    }
  }
  if (!parts.ok()) return parts.status();
  absl::Status status;
  for (std::size_t i = 0; i < 3; ++i) status.Update(std::move((*parts)[i]).MoveTo(projections[i]->mutable_weight()));
  if (weights.Has("in_proj_bias")) {
    parts = ReadStacked(weights, "in_proj_bias");
    if (!parts.ok()) return parts.status();
    for (std::size_t i = 0; i < 3; ++i) status.Update(std::move((*parts)[i]).MoveTo(projections[i]->mutable_bias()));
  }
  if (weights.Has("out_proj.weight"))
    status.Update(ReadLinear(weights, "out_proj", layer->mutable_output_projection()));
  return status;
}

absl::Status Read(const Weights& weights, v1::AttentionLayer* layer) {
  for (const Naming& naming : kNamings) {
    if (weights.Has(absl::StrCat(naming.query, ".weight"))) return ReadNamed(weights, naming, layer);
  }
  if (weights.Has("in_proj_weight") || weights.Has("q_proj_weight")) return ReadMultihead(weights, layer);
  return absl::NotFoundError(absl::StrCat("no attention layer is found; looked for ", kLookedFor,
                                          weights.prefix.empty() ? "" : absl::StrCat(" behind '", weights.prefix, "'"),
                                          "; the file has: ", absl::StrJoin(weights.file->Names(), ", ")));
}

}  // namespace

absl::StatusOr<v1::AttentionLayer> LoadLayer(const std::string& source) {
  TensorSource parsed = TensorSource::Parse(source);
  if (!parsed.is_safetensors()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", source, "' is not FILE.safetensors or FILE.safetensors:PREFIX"));
  }
  if (!parsed.name.empty() && !absl::EndsWith(parsed.name, ".")) parsed.name.push_back('.');
  absl::StatusOr<SafetensorsReader> file = SafetensorsReader::Open(parsed.path);
  if (!file.ok()) return file.status();
  v1::AttentionLayer layer;
  const absl::Status status = Read({&*file, parsed.name}, &layer);
  if (!status.ok()) return absl::Status(status.code(), absl::StrCat(parsed.path, ": ", status.message()));
  return layer;
}

}  // namespace attend::client
