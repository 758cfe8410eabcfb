// Fuzzes the way from the bytes of a checkpoint to a layer: whatever they are, they are refused with a reason, or are a
// layer whose description fits its weights. `make fuzz` runs it for long; `ctest -R checkpoint_fuzz_replay` runs the
// corpus. The first byte chooses heads, the second how much of the input, in units of 16 bytes, is a config.json; the
// rest is the file.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>

#include "formats/hugging_face/hugging_face_config.h"
#include "server/layers/layer.h"
#include "server/layers/layer_weights.h"

namespace {

using attend::formats::Checkpoint;
using attend::server::Layer;
using attend::server::LayerWeights;

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "checkpoint_fuzz: %s\n", what);
  std::abort();
}

void RequireReason(const absl::Status& status) { Require(!status.message().empty(), "a refusal without a reason"); }

void LoadLayer(const Checkpoint& checkpoint, const std::string& prefix, const attend::v1::LayerConfig& caller,
               const std::optional<std::string>& config_json) {
  const absl::StatusOr<LayerWeights> weights = attend::server::FindLayer(checkpoint, prefix, caller, config_json);
  if (!weights.ok()) return RequireReason(weights.status());
  const auto layer = Layer::Create(*weights, caller, {}, attend::InstructionSet::kBaseline);
  if (!layer.ok()) return RequireReason(layer.status());
  const attend::v1::Layer& description = (*layer)->description();
  Require(description.head_dim() * description.config().num_heads() == weights->query.out_features, "heads do not fit");
  Require(description.memory_bytes() > 0 && description.weight_bytes() > 0, "a layer without weights");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  attend::v1::LayerConfig caller;
  caller.set_num_heads(data[0] & 15);
  caller.set_num_kv_heads(data[0] >> 4);
  const std::string input(reinterpret_cast<const char*>(data + 2), size - 2);
  const std::size_t config_bytes = std::min<std::size_t>(input.size(), std::size_t{16} * data[1]);
  const std::string config_json = input.substr(0, config_bytes);
  for (const char* const prefix : {"", "encoder.layers.1", "decoder.layers.2"}) {
    const auto known = attend::formats::ParseHuggingFaceConfig(config_json, prefix, {}, data[0]);
    if (!known.ok()) RequireReason(known.status());
  }
  const auto file = std::make_shared<const std::string>(input.substr(config_bytes));
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::FromBytes(*file, file);
  if (!checkpoint.ok()) {
    RequireReason(checkpoint.status());
    return 0;
  }
  for (const char* const prefix : {"", "layers.1", "encoder.layers.1", "decoder.layers.2"}) {
    LoadLayer(*checkpoint, prefix, caller, std::nullopt);
    LoadLayer(*checkpoint, prefix, caller, config_json);
  }
  return 0;
}
