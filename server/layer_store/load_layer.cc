#include "server/layer_store/layer_upload.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/base/error.h"
#include "core/layer/projection.h"
#include "formats/safetensors/checkpoint.h"
#include "server/layers/layer_config.h"
#include "server/layers/layer_weights.h"

namespace attend::server {
namespace {

// An error of the checkpoint's or the layer's as one of the upload's: about the header's `given`, or about the bytes,
// of whose metadata `of_file` is, once it is known. Others are about what this server has left.
absl::Status AboutUpload(const absl::Status& status, const v1::LayerConfig& given, const v1::LayerConfig& of_file) {
  if (!absl::IsInvalidArgument(status) && !absl::IsDataLoss(status)) return status;
  const std::string field = GetErrorDetails(status).field;
  const bool is_about_config = absl::StartsWith(field, "config.");
  v1::LayerConfig said = given;
  ReplaceFloatFields(said).IgnoreError();  // Is what the error is about then.
  const bool is_of_file = is_about_config && !IsSetIn(said, field) && IsSetIn(of_file, field);
  if (is_of_file) return InvalidField("chunk", absl::StrCat("by the file, ", status.message()));
  return is_about_config ? PrefixField("header", status) : InvalidField("chunk", std::string(status.message()));
}

absl::StatusOr<LayerWeights> FindWeights(const v1::CreateLayerHeader& header, const SharedBytes& payload,
                                         LayerMemory::May may_copy, bool is_stored) {
  const absl::StatusOr<formats::Checkpoint> checkpoint = formats::Checkpoint::FromBytes(payload.bytes, payload.memory);
  if (!checkpoint.ok()) return AboutUpload(checkpoint.status(), {}, {});
  absl::StatusOr<LayerWeights> weights =
      FindLayer(*checkpoint, header.prefix(), header.config(),
                /*config_json=*/std::nullopt, /*config_name=*/"", may_copy, is_stored);
  return weights.ok() ? std::move(weights) : AboutUpload(weights.status(), header.config(), {});
}

// What the projections of a layer will take: FLOAT64 is kept as it is, all else packed.
std::int64_t MemoryBytes(const LayerWeights& weights, InstructionSet instruction_set) {
  std::int64_t bytes = 0;
  for (const LinearView* linear : {&weights.query, &weights.key, &weights.value, &weights.output}) {
    if (!linear->present()) continue;
    bytes += linear->weight_type == DataType::kFloat64 ? 8 * linear->out_features * (linear->in_features + 1)
                                                       : PackedLinear::BytesFor(*linear, instruction_set);
  }
  return bytes;
}

// Weights are views of bytes that are there already or copies, which ask before; those of `init` are made.
absl::StatusOr<LayerWeights> LoadWeights(const v1::CreateLayerHeader& header, const SharedBytes& payload,
                                         InstructionSet instruction_set, const LayerMemory& memory, bool is_stored) {
  const std::int64_t dim = header.init().embed_dim();
  if (header.has_init() && dim >= 1 && dim <= kMaxSeededEmbedDim) {
    const float any = 0;  // Never read.
    const LinearView linear{.weight = &any, .bias = &any, .out_features = dim, .in_features = dim};
    if (absl::Status may = memory.may_keep(3 * PackedLinear::BytesFor(linear, instruction_set)); !may.ok()) return may;
  }
  if (header.has_init()) {
    absl::StatusOr<LayerWeights> weights = SeededLayer(header.init());
    return weights.ok() ? std::move(weights) : PrefixField("header", weights.status());
  }
  absl::StatusOr<LayerWeights> weights = FindWeights(header, payload, memory.may_copy, is_stored);
  if (!weights.ok()) return weights;
  if (absl::Status may = memory.may_keep(MemoryBytes(*weights, instruction_set)); !may.ok()) return may;
  return weights;
}

std::string Origin(const v1::CreateLayerHeader& header) {
  return header.has_init() ? absl::StrCat("init seed ", header.init().seed()) : "upload";
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Layer>> LoadLayer(const LayerRecord& record, const SharedBytes& payload,
                                                       InstructionSet instruction_set, Log& log,
                                                       const TraceContext& trace, const LayerMemory& memory,
                                                       Executor* executor, bool is_stored) {
  const absl::Time start = absl::Now();
  const v1::CreateLayerHeader& header = record.header;
  const absl::StatusOr<LayerWeights> weights = LoadWeights(header, payload, instruction_set, memory, is_stored);
  if (!weights.ok()) return weights.status();
  Layer::Identity identity{.name = header.name(),
                           .origin = Origin(header),
                           .sha256 = header.sha256(),
                           .etag = header.etag(),
                           .read_only = false,
                           .create_time_ms = record.create_time_ms};
  const absl::Time found = absl::Now();
  absl::StatusOr<std::shared_ptr<const Layer>> layer =
      Layer::Create(*weights, header.config(), std::move(identity), instruction_set, executor);
  if (!layer.ok()) return AboutUpload(layer.status(), header.config(), weights->config);
  log.WriteFields(spdlog::level::info, "layer loaded",
                  trace.With({{"layer", header.name()},
                              {"tenant", record.tenant},
                              {"origin", Origin(header)},
                              {"memory_bytes", std::int64_t{(*layer)->description().memory_bytes()}},
                              {"finding_ms", absl::ToDoubleMilliseconds(found - start)},
                              {"packing_ms", absl::ToDoubleMilliseconds(absl::Now() - found)}}));
  return layer;
}

}  // namespace attend::server
