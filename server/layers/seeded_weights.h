// The teaching notebook's layer from a seed, without a file: what PyTorch would draw, bit for bit.
#ifndef ATTEND_SERVER_LAYERS_SEEDED_WEIGHTS_H_
#define ATTEND_SERVER_LAYERS_SEEDED_WEIGHTS_H_

#include "absl/status/statusor.h"
#include "attend/v1/layer_service.pb.h"
#include "server/layers/layer_weights.h"

namespace attend::server {

// The most that SeededWeights.embed_dim may be.
inline constexpr std::int64_t kMaxSeededEmbedDim = 16384;

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

#endif  // ATTEND_SERVER_LAYERS_SEEDED_WEIGHTS_H_
