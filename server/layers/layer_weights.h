// The weights of one attention layer, wherever they come from, and what is known about how to use them.
#ifndef ATTEND_SERVER_LAYERS_LAYER_WEIGHTS_H_
#define ATTEND_SERVER_LAYERS_LAYER_WEIGHTS_H_

#include <memory>
#include <string>

#include "attend/v1/layer_service.pb.h"
#include "core/attention/attend_problem.h"

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
  std::shared_ptr<const void> memory;  // Keeps alive what the views point to: a mapped file, cut or transposed copies.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYERS_LAYER_WEIGHTS_H_
