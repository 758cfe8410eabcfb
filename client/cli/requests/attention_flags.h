// The flags of `compute` and `sdpa` that say how queries look at keys and what to return.
#ifndef ATTEND_CLIENT_CLI_REQUESTS_ATTENTION_FLAGS_H_
#define ATTEND_CLIENT_CLI_REQUESTS_ATTENTION_FLAGS_H_

#include <CLI/App.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "attend/v1/attention_service.pb.h"
#include "client/lib/element_type.h"

namespace attend::client {

// The fields of attend.v1.AttentionOptions, as given; tensors by the files that hold them.
struct AttentionFlags {
  std::string dtype;  // To which type inputs and layer are converted; empty: they are sent as they are.
  bool causal = false;
  bool causal_top_left = false;
  std::optional<float> scale;
  std::optional<float> softcap;
  std::optional<std::int64_t> window_left;
  std::optional<std::int64_t> window_right;
  std::string valid_lengths;
  std::string cumulative_query_lengths;
  std::string cumulative_key_lengths;
  std::string mask;
  std::string bias;
  std::string alibi_slopes;
  std::string sinks;
  bool per_head = false;
  bool weights = false;
  std::optional<std::int32_t> top_k;
  std::vector<std::string> returned = {"output"};
};

// Declares the flags on `command`; they are read into `flags`, which must outlive parsing.
void AddAttentionFlags(CLI::App* command, AttentionFlags* flags);

// The options as the service takes them; `is_double` says whether its arithmetic will be float64. Ranges are left to
// the server to judge. Errors: those of reading files.
absl::StatusOr<v1::AttentionOptions> BuildOptions(const AttentionFlags& flags, bool is_double);

// The type that --dtype names, if any.
std::optional<ElementType> GivenType(const AttentionFlags& flags);

// Whether --top-k is there if `kinds` need it. Errors: INVALID_ARGUMENT.
absl::Status CheckTopK(const AttentionFlags& flags, const std::vector<v1::OutputKind>& kinds);

// The names of the tensors that a kind returns (`attention_weights`; two for the top weights), none for an unknown
// kind, and back: OUTPUT_KIND_UNSPECIFIED for an unknown name.
std::vector<std::string> OutputNames(v1::OutputKind kind);
v1::OutputKind OutputKindOf(const std::string& name);

// What --return, --weights and --top-k ask for, each once, in the given order.
std::vector<v1::OutputKind> ReturnedKinds(const AttentionFlags& flags);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_REQUESTS_ATTENTION_FLAGS_H_
