// The weights of one attention layer as the core takes them, and what is known about how to use them: read from a
// checkpoint, or drawn from a seed.
#ifndef ATTEND_SERVER_LAYERS_LAYER_WEIGHTS_H_
#define ATTEND_SERVER_LAYERS_LAYER_WEIGHTS_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "attend/v1/layer_service.pb.h"
#include "core/layer/attend_problem.h"
#include "formats/layers/weight_reader.h"
#include "formats/safetensors/checkpoint.h"
#include "server/base/limits.h"

namespace attend::server {

// A checkpoint's layer: projections and norms found, heads and options known as far as the checkpoint says.
struct LayerWeights {
  LinearView query;   // [H * E, D]
  LinearView key;     // [K * E, D']
  LinearView value;   // [K * V, D']
  LinearView output;  // [D_out, H * V], or absent.
  // Of query and key: widened to FLOAT32, whatever the file has.
  NormView query_norm;
  NormView key_norm;
  // What the checkpoint itself (metadata, config.json, the naming) says; the caller's configuration goes before it.
  v1::LayerConfig config;
  std::string naming;                  // For people: `bert`, `llama`, ...
  std::vector<std::string> notes;      // v1::Layer.notes.
  std::shared_ptr<const void> memory;  // Keeps alive what the views point to: a mapped file, cut or transposed copies.
};

// Reads a layer (formats/layers/layer_reader.h). The file's metadata go before `config_json`, the text of the model's
// config.json if there is one, which is called `config_name` in errors, and `caller` before both.
// `may_copy` is asked before weights are copied that cannot be used where they are; `is_stored` says that a server has
// served the layer already (LayerRequest). Errors: INVALID_ARGUMENT, those of
// ReadLayer.
absl::StatusOr<LayerWeights> FindLayer(const formats::Checkpoint& checkpoint, std::string_view prefix,
                                       const v1::LayerConfig& caller = {},
                                       const std::optional<std::string>& config_json = std::nullopt,
                                       const std::string& config_name = "config.json",
                                       formats::MayCopy may_copy = formats::CopyAnything, bool is_stored = false);

// The teaching notebook's layer, without a file: what PyTorch would draw, bit for bit.

// The bytes of the weights that SeededLayer makes: 12 * embed_dim * (embed_dim + 1). REQUIRES: embed_dim is valid.
std::int64_t SeededWeightBytes(std::int64_t embed_dim);

// The weights of torch.manual_seed(seed); SimpleAttention(embed_dim): query, key and value, each a torch.nn.Linear with
// its default initialisation. How PyTorch draws it:
//   - MT19937 (Matsumoto & Nishimura 1998), seeded with the lower 32 bits;
//   - one number x of 32 bits for each element: u = (x mod 2^24) / 2^24, and u * (to - from) + from, fused: PyTorch's
//     kernel is compiled for AVX2, where compilers contract the two;
//   - bounds computed in double and then rounded: weights within sqrt(3) * sqrt(2 / (1 + 5)) / sqrt(D)
//     (kaiming_uniform_ with a = sqrt(5)), biases within 1 / sqrt(D).
// Checked against files made by PyTorch, and against PyTorch itself by `make test-vectors`.
//
// Pure; may be called concurrently. Errors: INVALID_ARGUMENT (`init.embed_dim`).
absl::StatusOr<LayerWeights> SeededLayer(const v1::SeededWeights& seeded);

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYERS_LAYER_WEIGHTS_H_
