#include "client/io/layer_file.h"

#include <google/protobuf/util/json_util.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "formats/files/mapped_file.h"
#include "formats/hugging_face/hugging_face_config.h"
#include "formats/layers/layer_message.h"
#include "formats/safetensors/checkpoint.h"

namespace attend::client {
namespace {

v1::DataType TypeOf(formats::WeightType type) {
  switch (type) {
    case formats::WeightType::kFloat64: return v1::DATA_TYPE_FLOAT64;
    case formats::WeightType::kFloat16: return v1::DATA_TYPE_FLOAT16;
    case formats::WeightType::kBFloat16: return v1::DATA_TYPE_BFLOAT16;
    case formats::WeightType::kFloat32: break;
  }
  return v1::DATA_TYPE_FLOAT32;
}

void PlaceTensor(const void* numbers, formats::WeightType type, const std::vector<std::int64_t>& shape,
                 v1::Tensor* tensor) {
  std::int64_t bytes = formats::SizeOf(type);
  for (const std::int64_t size : shape) bytes *= size;
  tensor->set_data_type(TypeOf(type));
  tensor->mutable_shape()->Assign(shape.begin(), shape.end());
  tensor->set_data(numbers, static_cast<std::size_t>(bytes));
}

void PlaceLinear(const formats::LinearWeights& from, v1::Linear* to) {
  PlaceTensor(from.weight, from.weight_type, {from.out_features, from.in_features}, to->mutable_weight());
  if (from.bias != nullptr) PlaceTensor(from.bias, from.bias_type, {from.out_features}, to->mutable_bias());
}

using ConfigJson = std::optional<std::string>;

absl::StatusOr<ConfigJson> ReadConfigBeside(const std::string& path) {
  const std::filesystem::path beside = std::filesystem::path(path).replace_filename("config.json");
  std::error_code error;
  if (!std::filesystem::exists(beside, error)) return ConfigJson();
  absl::StatusOr<std::string> text = formats::ReadTextFile(beside.string(), formats::kMaxHuggingFaceConfigBytes);
  if (!text.ok()) return text.status();
  return ConfigJson(*std::move(text));
}

absl::StatusOr<LayerFile> ReadWith(const std::string& path, const std::string& prefix, const v1::LayerConfig& caller,
                                   const ConfigJson& config_json) {
  const auto about = [&path](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
  };
  const absl::StatusOr<formats::Checkpoint> checkpoint = formats::Checkpoint::Open(path);
  if (!checkpoint.ok()) return checkpoint.status();
  const absl::StatusOr<v1::LayerConfig> metadata =
      formats::LayerConfigOfMetadata<v1::LayerConfig>(checkpoint->metadata(), ParseLayerConfig);
  if (!metadata.ok()) return about(metadata.status());
  LayerFile file;
  file.said = formats::MergeLayerConfig(*metadata, caller);
  absl::StatusOr<formats::AttentionLayer> layer =
      formats::ReadLayer(*checkpoint, {prefix, formats::CallerSettingsOf(file.said), config_json});
  if (!layer.ok()) return about(layer.status());
  file.layer = *std::move(layer);
  formats::PutSettings(file.layer.settings, &file.config);
  file.config = formats::MergeLayerConfig(file.config, file.said);
  return file;
}

bool IsSameLayer(const LayerFile& a, const LayerFile& b) {
  const auto settings = [](v1::LayerConfig config) {
    config.clear_ignored_tensors();  // Of the file's metadata and of the caller, whose list then has both.
    return config.SerializeAsString();
  };
  return a.layer.naming == b.layer.naming && settings(a.config) == settings(b.config);
}

// What a layer has that a request with weights cannot say; empty for nothing.
std::string NeedsName(const LayerFile& file) {
  const v1::RotaryEmbedding& rotary = file.config.rotary_embedding();
  if (file.layer.query_norm.weight != nullptr || file.layer.key_norm.weight != nullptr) {
    return "norms of query and key";
  }
  return file.config.has_rotary_embedding() && rotary.form() != v1::ROTARY_FORM_NONE ? "a rotary embedding" : "";
}

}  // namespace

absl::StatusOr<v1::LayerConfig> ParseLayerConfig(const std::string& json) {
  v1::LayerConfig config;
  const auto parsed = google::protobuf::util::JsonStringToMessage(json, &config);
  if (parsed.ok()) return config;
  return absl::InvalidArgumentError(
      absl::StrCat("it is not a LayerConfig in protobuf's JSON form: ", parsed.ToString()));
}

absl::StatusOr<LayerFile> ReadLayerFile(const std::string& path, const std::string& prefix,
                                        const v1::LayerConfig& caller, bool reads_config_json) {
  if (!reads_config_json) return ReadWith(path, prefix, caller, ConfigJson());
  const absl::StatusOr<ConfigJson> beside = ReadConfigBeside(path);
  if (!beside.ok()) return beside.status();
  return ReadWith(path, prefix, caller, *beside);
}

absl::StatusOr<v1::LayerConfig> ConfigOfUpload(const std::string& path, const std::string& prefix,
                                               const v1::LayerConfig& caller) {
  const absl::StatusOr<ConfigJson> beside = ReadConfigBeside(path);
  if (!beside.ok()) return beside.status();
  if (!beside->has_value()) return caller;
  absl::StatusOr<LayerFile> file = ReadWith(path, prefix, caller, *beside);
  if (!file.ok()) return file.status();
  const absl::StatusOr<LayerFile> alone = ReadWith(path, prefix, file->config, ConfigJson());
  if (alone.ok() && IsSameLayer(*alone, *file)) return std::move(file->config);
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": the config.json beside it says what an upload cannot, and without it the file is ",
                   alone.ok() ? "another layer" : absl::StrCat("no layer (", alone.status().message(), ")"),
                   "; have the server load both (attend-server --layer)"));
}

absl::StatusOr<InlineLayer> LoadInlineLayer(const std::string& path, const std::string& prefix,
                                            const v1::LayerConfig& caller) {
  const absl::StatusOr<LayerFile> file = ReadLayerFile(path, prefix, caller);
  if (!file.ok()) return file.status();
  if (const std::string needs = NeedsName(*file); !needs.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the layer has ", needs,
                                                   ", which weights sent with a request cannot have; upload it (attend "
                                                   "layers upload NAME FILE) and call it by name"));
  }
  InlineLayer result;
  PlaceLinear(file->layer.query, result.layer.mutable_query_projection());
  PlaceLinear(file->layer.key, result.layer.mutable_key_projection());
  PlaceLinear(file->layer.value, result.layer.mutable_value_projection());
  if (file->layer.output.weight != nullptr) {
    PlaceLinear(file->layer.output, result.layer.mutable_output_projection());
  }
  result.layer.set_num_heads(file->config.num_heads());
  result.layer.set_num_kv_heads(file->config.num_kv_heads());
  result.options = file->config.options();
  return result;
}

void FillOptions(const v1::AttentionOptions& layer, v1::AttentionOptions* options) {
  std::vector<const google::protobuf::FieldDescriptor*> given;
  options->GetReflection()->ListFields(*options, &given);
  v1::AttentionOptions rest = layer;
  for (const google::protobuf::FieldDescriptor* field : given) rest.GetReflection()->ClearField(&rest, field);
  options->MergeFrom(rest);
}

}  // namespace attend::client
