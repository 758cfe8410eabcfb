// One named layer that can be called: its weights packed, its configuration complete.
#ifndef ATTEND_SERVER_LAYERS_LAYER_H_
#define ATTEND_SERVER_LAYERS_LAYER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "attend/v1/layer_service.pb.h"
#include "core/kernels/instruction_set.h"
#include "core/layer/attend_problem.h"
#include "core/layer/projection.h"
#include "core/problem/options.h"
#include "core/runtime/executor.h"
#include "core/tensor/aligned_buffer.h"
#include "server/layers/layer_config.h"
#include "server/layers/layer_weights.h"

namespace attend::server {

// An etag is the first hexadecimal digits of a SHA-256.
inline constexpr std::size_t kEtagDigits = 32;

// Self-contained: source weights and their mapping may be freed after Create. Weights of
// projections are kept packed alone, so that view().query.weight and its like are null (but for FLOAT64, which is not
// packed): requests are computed with the instruction set that the layer was made for.
//
// Immutable; shared by requests through shared_ptr, so that a layer that is replaced or deleted lives until the last
// request that uses it has ended.
class Layer {
 public:
  // What is not in the weights.
  struct Identity {
    std::string name;
    std::string origin;  // `upload`, `init seed 42`, or a file: v1::Layer.origin.
    std::string sha256;  // Of the uploaded bytes, or empty.
    std::string etag;
    bool read_only = false;
    std::int64_t create_time_ms = 0;
  };

  // Packs the weights; what the `caller` leaves open is taken from weights.config, and then from the
  // defaults that layer_service.proto states. Errors: INVALID_ARGUMENT naming the field of the configuration or the
  // tensor (`config.num_heads`, `config.rotary_embedding.dim`, ...): everything that AttendProblem::Create checks about
  // a layer is checked here once. Idle threads of `executor` help to pack, if there is one.
  static absl::StatusOr<std::shared_ptr<const Layer>> Create(const LayerWeights& weights, const v1::LayerConfig& caller,
                                                             Identity identity, InstructionSet instruction_set,
                                                             Executor* executor = nullptr);

  const LayerView& view() const { return view_; }
  // What view().rotary.frequencies are in texts of `length` tokens; null when they are the same in all. Errors: none;
  // pure.
  std::shared_ptr<const std::vector<double>> FrequenciesFor(std::int64_t length) const;
  // The most tokens of a text for which view().rotary.frequencies hold; 0 when they hold for all.
  std::int64_t short_context_length() const { return short_context_length_; }
  // The layer's own options, for what a request leaves open: the causal mode and those of kScalarOptions and
  // kPerHeadOptions. Spans view memory of the layer.
  const AttentionOptions& options() const { return options_.options; }
  // As GetLayer returns it.
  const v1::Layer& description() const { return description_; }

 private:
  Layer() = default;
  // Take what the view points to into memory of the layer's own, so that a mapped file can go.
  void Pack(InstructionSet instruction_set, Executor* executor);
  void KeepNorms();
  void Describe(const v1::LayerConfig& config, const LayerWeights& weights, Identity identity);
  void DescribeConfig(const v1::LayerConfig& config);
  void DescribeWeights();
  // Counts what the configuration takes, if that is much.
  void CountConfig();

  LayerView view_;
  LayerOptions options_;
  v1::Layer description_;
  std::vector<double> frequencies_;  // Of view_.rotary, in short texts.
  v1::RotaryEmbedding rotary_;       // Complete; for long ones.
  std::int64_t short_context_length_ = 0;
  std::vector<std::unique_ptr<PackedLinear>> packed_;  // Of view_'s projections, FLOAT64 apart.
  std::vector<AlignedBuffer<std::byte>> copies_;       // FLOAT64 projections, norms.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYERS_LAYER_H_
