// The flags of `compute` and `sdpa` that say how queries look at keys and what to return.
#ifndef ATTEND_CLIENT_CLI_REQUESTS_ATTENTION_FLAGS_H_
#define ATTEND_CLIENT_CLI_REQUESTS_ATTENTION_FLAGS_H_

#include <CLI/App.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "attend/v1/attention_service.pb.h"
#include "attend/v1/layer_service.pb.h"
#include "client/cli/requests/message_flags.h"
#include "client/lib/element_type.h"

namespace attend::client {

struct AttentionFlags {
  std::string dtype;     // To which type inputs and layer are converted; empty: they are sent as they are.
  MessageFlags options;  // The fields of attend.v1.AttentionOptions.
  bool weights = false;
  std::vector<std::string> returned = {"output"};
};

// Declares the flags on `command`; they are read into `flags`, which must outlive parsing.
void AddAttentionFlags(CLI::App* command, AttentionFlags* flags);

// Declares --num-heads and --num-kv-heads on `command`, to be read into `config`, which must outlive parsing.
void AddHeadFlags(CLI::App* command, v1::LayerConfig* config);

// The type that --dtype names, if any.
std::optional<ElementType> GivenType(const AttentionFlags& flags);

// The flag that sets a field of a request, as a server's error names it: --input for `embeddings.shape`, --window-left
// for `options.sliding_window_left`. Pure.
std::string FlagOfField(const std::string& field);

// The names of the tensors that a kind returns: `attention_weights`; two for the top weights.
std::vector<std::string> OutputNames(v1::OutputKind kind);

// What --return, --weights and --top-k ask for, each once, in the given order. Errors: INVALID_ARGUMENT for top weights
// without --top-k.
absl::StatusOr<std::vector<v1::OutputKind>> ReturnedKinds(const AttentionFlags& flags);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_REQUESTS_ATTENTION_FLAGS_H_
