// An attention layer in a file: found as a server finds it (formats/layers/layer_reader.h), and made into a message.
#ifndef ATTEND_CLIENT_IO_LAYER_FILE_H_
#define ATTEND_CLIENT_IO_LAYER_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "attend/v1/attention_service.pb.h"
#include "attend/v1/layer_service.pb.h"
#include "formats/layers/layer_reader.h"

namespace attend::client {

struct LayerFile {
  formats::AttentionLayer layer;
  v1::LayerConfig said;    // By the caller and the file's metadata.
  v1::LayerConfig config;  // All that is known, `said` before what the model's config.json says.
};

// The layer in `path`, a .safetensors file or the index of a sharded model, at `prefix`. The config.json beside it is
// read, as a server does, unless `reads_config_json` is false; `caller` goes before it. Errors: INVALID_ARGUMENT and
// NOT_FOUND with the path, for whatever a server refuses.
absl::StatusOr<LayerFile> ReadLayerFile(const std::string& path, const std::string& prefix,
                                        const v1::LayerConfig& caller, bool reads_config_json = true);

// What an upload of `path` says beside the file, because the file alone is sent: `caller`, and what a config.json
// beside it says where the caller leaves it open. Errors: as ReadLayerFile, where there is a config.json;
// INVALID_ARGUMENT when the file with these settings and without its config.json is another layer.
absl::StatusOr<v1::LayerConfig> ConfigOfUpload(const std::string& path, const std::string& prefix,
                                               const v1::LayerConfig& caller);

// A LayerConfig in protobuf's JSON form. Errors: INVALID_ARGUMENT.
absl::StatusOr<v1::LayerConfig> ParseLayerConfig(const std::string& json);

// A layer as a request carries it: weights and heads, and the options that belong to it.
struct InlineLayer {
  v1::AttentionLayer layer;
  v1::AttentionOptions options;
};

// Reads as ReadLayerFile does. Weights have the types of the file. Errors: those of
// ReadLayerFile; INVALID_ARGUMENT for a layer with norms or a rotary embedding, which has to be called by name.
absl::StatusOr<InlineLayer> LoadInlineLayer(const std::string& path, const std::string& prefix,
                                            const v1::LayerConfig& caller);

// Sets what `options` leaves open to what `layer` says. A tensor is one thing. Pure.
void FillOptions(const v1::AttentionOptions& layer, v1::AttentionOptions* options);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_IO_LAYER_FILE_H_
