// What a server accepts: limits that an operator sets, and constants that nobody does. Those of attention itself are
// the core's.
#ifndef ATTEND_SERVER_BASE_LIMITS_H_
#define ATTEND_SERVER_BASE_LIMITS_H_

#include <cstddef>
#include <cstdint>

namespace attend::server {

// What a request may cost; each is set by the flag of the same name and reported by GetServerInfo.
struct Limits {
  std::int64_t max_request_bytes = std::int64_t{256} << 20;
  std::int64_t max_response_bytes = std::int64_t{256} << 20;
  double max_request_flops = 1e14;
  std::int64_t max_request_memory_bytes = std::int64_t{2} << 30;
  int max_queued_requests = 64;
  std::int64_t max_memory_in_flight_bytes = std::int64_t{4} << 30;  // Of all requests and responses together.
  int max_stream_requests_in_flight = 64;                           // Of one stream.
  int num_threads = 1;  // Not a limit: each compute thread takes memory of its own for a request. Flag `--threads`.
};

// Each is set by the flag of the same name and reported by GetServerInfo. Layers of the server's own configuration
// count among the layers and their bytes, but are loaded whatever they take.
struct LayerLimits {
  int max_layers = 256;
  std::int64_t max_layer_bytes = std::int64_t{2} << 30;   // Of one upload, or of the weights that `init` makes.
  std::int64_t max_layers_bytes = std::int64_t{4} << 30;  // Memory of all layers together.
  int max_uploads = 8;                                    // Under way at a time.
};

// The most axes of a tensor.
inline constexpr int kMaxRank = 8;

// The most partial results that a request has merged.
inline constexpr std::int64_t kMaxPartialResults = 1024;

// The most sequences of a ragged batch with fewer queries than that.
inline constexpr std::int64_t kMaxEmptySequences = 1 << 16;

// Bytes of a request that is estimated: room for the lengths of many sequences, not for tensors.
inline constexpr std::int64_t kMaxEstimateBytes = 1 << 20;

// Bytes of a message that asks for a name or for nothing, and of an upload's header: no honest one comes near.
inline constexpr std::int64_t kMaxControlMessageBytes = 64 << 10;
inline constexpr std::int64_t kMaxUploadHeaderBytes = 64 << 10;

inline constexpr std::size_t kMaxLayerNameBytes = 128;

// The most that SeededWeights.embed_dim may be.
inline constexpr std::int64_t kMaxSeededEmbedDim = 16384;

}  // namespace attend::server

#endif  // ATTEND_SERVER_BASE_LIMITS_H_
