// A layer's configuration: read from text, put together from several sources, and turned into what the core computes
// with.
#ifndef ATTEND_SERVER_LAYERS_LAYER_CONFIG_H_
#define ATTEND_SERVER_LAYERS_LAYER_CONFIG_H_

#include <array>
#include <cstdint>
#include <iterator>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "attend/v1/layer_service.pb.h"
#include "core/problem/options.h"
#include "formats/layers/layer_message.h"

namespace attend::server {

using formats::MergeLayerConfig;

// A LayerConfig in protobuf's JSON form: `{"numHeads": 12}` or `{"num_heads": 12}`. Errors: INVALID_ARGUMENT with what
// protobuf's parser says, for an unknown field too.
absl::StatusOr<v1::LayerConfig> ParseLayerConfig(std::string_view json);

// Options and the memory that they view. Move-only, because a copy would view its original's.
struct LayerOptions {
  LayerOptions() = default;
  LayerOptions(LayerOptions&&) = default;
  LayerOptions& operator=(LayerOptions&&) = default;

  AttentionOptions options;
  std::array<std::vector<double>, std::size(kPerHeadOptions)> per_head;
};

// Moves what deprecated fields of version 0.1 hold (`float_norm_epsilon`, `options.float_scale`, ...) to the fields
// that replace them. Errors: INVALID_ARGUMENT with the field when both are given and the deprecated one is not the
// other in float32.
absl::Status ReplaceFloatFields(v1::LayerConfig& config);

// Sets the deprecated fields to what the fields that replace them hold, for clients of version 0.1.
void AddFloatFields(v1::LayerConfig& config);

// Refuses lengths, masks and bias, which are about the tokens of one request, and what says what to return. Errors:
// INVALID_ARGUMENT with the field (`config.options.mask`).
absl::Status CheckAreLayerOptions(const v1::AttentionOptions& options);

// Refuses more names than a layer may leave out tensors. Errors: INVALID_ARGUMENT with the field
// (`config.ignored_tensors`). Pure.
absl::Status CheckIgnoredTensors(const v1::LayerConfig& config);

// Whether `config` itself says what an error about `field` (`config.options.scale`) is about. Pure.
bool IsSetIn(const v1::LayerConfig& config, absl::string_view field);

// Refuses an `original_context_length` that nothing depends on, in a configuration that somebody gives: a stored layer
// may have it. Errors: INVALID_ARGUMENT with the field (`config.rotary_embedding.original_context_length`).
absl::Status CheckRotaryHasEffect(const v1::LayerConfig& config);

// The options of a layer with `num_heads` heads, which `is_double` computes in FLOAT64. Rejects request-only fields and
// tensors that are not what they claim; value ranges are checked by AttendProblem::Create. Pure. REQUIRES:
// ReplaceFloatFields. Errors: INVALID_ARGUMENT with the field (`config.options.mask`).
absl::StatusOr<LayerOptions> ReadLayerOptions(const v1::AttentionOptions& options, std::int64_t num_heads,
                                              bool is_double);

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

#endif  // ATTEND_SERVER_LAYERS_LAYER_CONFIG_H_
