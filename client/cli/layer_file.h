// Finds the weights of an attention layer in a .safetensors file, whatever the framework called them.
#ifndef ATTEND_CLIENT_CLI_LAYER_FILE_H_
#define ATTEND_CLIENT_CLI_LAYER_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "attend/v1/attention_service.pb.h"

namespace attend::client {

// `source` is `file.safetensors` or `file.safetensors:PREFIX`, where PREFIX (as in `encoder.layers.0.self_attn.`) comes
// before every name. Three namings are known; biases and output projections are optional in each:
//
//   query.weight, key.weight, value.weight, [output | out_proj].weight    the notebook's SimpleAttention
//   q_proj.weight, k_proj.weight, v_proj.weight, [o_proj | out_proj].weight    language models
//   in_proj_weight [3E, E] (or q_proj_weight, k_proj_weight, v_proj_weight), in_proj_bias, out_proj.weight
//                                                                              torch.nn.MultiheadAttention
//
// The returned layer has no head counts, and the types of the file (float32 for integers). Errors: those of reading;
// NOT_FOUND, listing what was looked for and what the file has, when no naming fits; INVALID_ARGUMENT when a stacked
// weight cannot be cut into three, or for torch.nn.MultiheadAttention's bias_k and bias_v, which attend does not have.
absl::StatusOr<v1::AttentionLayer> LoadLayer(const std::string& source);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_LAYER_FILE_H_
