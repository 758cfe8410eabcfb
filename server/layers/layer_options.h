// The parts of a layer's configuration, from messages to what the core computes with.
#ifndef ATTEND_SERVER_LAYERS_LAYER_OPTIONS_H_
#define ATTEND_SERVER_LAYERS_LAYER_OPTIONS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "attend/v1/layer_service.pb.h"
#include "core/problem/options.h"

namespace attend::server {

// Options and the memory that they view. Move-only, because a copy would view its original's.
struct LayerOptions {
  LayerOptions() = default;
  LayerOptions(LayerOptions&&) = default;
  LayerOptions& operator=(LayerOptions&&) = default;

  AttentionOptions options;
  std::vector<float> alibi_slopes;
  std::vector<float> sinks;
};

// The options of a layer with `num_heads` heads. Values are checked where a problem is made of them; here is checked
// that nothing is set that is not the layer's, and that tensors are what they claim. Pure. Errors: INVALID_ARGUMENT
// with the field (`config.options.mask`).
absl::StatusOr<LayerOptions> ReadLayerOptions(const v1::AttentionOptions& options, std::int64_t num_heads);

// The angle by which each pair turns from one position to the next, with scaling, in a text of `length` tokens; dim / 2
// of them. REQUIRES: `rotary` is complete.
std::vector<double> RotaryFrequencies(const v1::RotaryEmbedding& rotary, std::int64_t length);

// Whether they differ between texts of different lengths. REQUIRES: complete.
inline bool DependsOnLength(const v1::RotaryEmbedding& rotary) {
  return rotary.has_dynamic_factor() || rotary.long_frequencies_size() > 0;
}

// Fills in what `rotary` leaves open, for heads of `head_dim` elements. Errors: INVALID_ARGUMENT with the field
// (`config.rotary_embedding.dim`).
absl::StatusOr<v1::RotaryEmbedding> CompleteRotary(const v1::RotaryEmbedding& rotary, std::int64_t head_dim);

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYERS_LAYER_OPTIONS_H_
