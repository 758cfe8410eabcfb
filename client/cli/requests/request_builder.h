// Turns the flags of `compute` and `sdpa` into requests, with tensors of types that go together.
//
// Tensors are sent as their files have them, or as --dtype says. Where one of the inputs is float64 all are, for the
// service takes float64 with float64 alone, and so are the weights of the layer; elsewhere float64 weights become
// float32.
#ifndef ATTEND_CLIENT_CLI_REQUESTS_REQUEST_BUILDER_H_
#define ATTEND_CLIENT_CLI_REQUESTS_REQUEST_BUILDER_H_

#include <CLI/App.hpp>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "attend/v1/attention_service.pb.h"
#include "attend/v1/layer_service.pb.h"
#include "client/cli/requests/attention_flags.h"

namespace attend::client {

struct ComputeFlags {
  std::vector<std::string> inputs;
  std::string context;
  std::string layer;       // A file, or a name.
  std::string layer_name;  // A name.
  v1::LayerConfig heads;   // num_heads and num_kv_heads, for a layer from a file.
  MessageFlags request;    // Fields of attend.v1.AttendRequest that go with a named layer.
  AttentionFlags attention;
};

struct SdpaFlags {
  std::string query;
  std::string key;
  std::string value;
  std::vector<std::string> partials;
  MessageFlags request;  // Further fields of attend.v1.ScaledDotProductAttentionRequest.
  AttentionFlags attention;
};

// Declares the flags on `command`; they are read into `flags`, which must outlive parsing.
void AddComputeFlags(CLI::App* command, ComputeFlags* flags);
void AddSdpaFlags(CLI::App* command, SdpaFlags* flags);

// Fills one request for each input of a batch in turn. Context, layer and options stay in it from one input to the
// next, and are read again only where the next needs them in the other precision. Thread-compatible.
class AttendRequestBuilder {
 public:
  // Both must outlive it.
  AttendRequestBuilder(const ComputeFlags& flags, v1::AttendRequest* request) : flags_(flags), request_(request) {}

  // Completes the request for input number `index`. Errors: those of reading files; INVALID_ARGUMENT for flags that do
  // not go together.
  absl::Status Prepare(std::size_t index);

 private:
  absl::Status PlaceLayer(bool is_double);

  const ComputeFlags& flags_;
  v1::AttendRequest* const request_;
  v1::AttentionOptions layer_options_;  // Of a layer from a file; what flags set goes before them.
  bool has_double_context_ = false;
  std::optional<bool> is_double_;  // What layer and options were read for.
};

// Completes the request. Errors: as above.
absl::Status BuildSdpaRequest(const SdpaFlags& flags, v1::ScaledDotProductAttentionRequest* request);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_REQUESTS_REQUEST_BUILDER_H_
