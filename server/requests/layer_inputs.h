// The attention layer of a request: its weights checked, then gathered.
#ifndef ATTEND_SERVER_REQUESTS_LAYER_INPUTS_H_
#define ATTEND_SERVER_REQUESTS_LAYER_INPUTS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "core/layer/attend_problem.h"
#include "server/requests/tensor_codec.h"
#include "server/wire/request_reader.h"

namespace attend::server {

// A default one is absent. Copyable; copies share the memory that the tensors view.
struct LayerInputs {
  static constexpr std::size_t kNumProjections = 4;  // Query, key, value, output.

  struct Linear {
    InputTensor weight;  // [out_features, in_features]
    InputTensor bias;    // [out_features]
  };

  bool present = false;
  std::array<Linear, kNumProjections> projections;
  std::int64_t num_heads = 1;
  std::int64_t num_kv_heads = 1;

  // Appends the tensors that are not absent.
  void AppendTensors(InputTensors& tensors);

  // The layer as the core takes it.
  std::optional<LayerView> View() const;
};

// Checks what can be said about each projection alone: a weight, and a bias of its length. Absent numbers of heads get
// their defaults. Errors: INVALID_ARGUMENT with the field below `layer`. REQUIRES: `layer` is a default one. Pure; may
// be called concurrently.
absl::Status CheckLayer(const RawLayer& raw, LayerInputs& layer);

}  // namespace attend::server

#endif  // ATTEND_SERVER_REQUESTS_LAYER_INPUTS_H_
