// The flags of `compute` and `sdpa` that say how queries look at keys and what to return.
#ifndef ATTEND_CLIENT_CLI_ATTENTION_FLAGS_H_
#define ATTEND_CLIENT_CLI_ATTENTION_FLAGS_H_

#include <CLI/App.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "attend/v1/attention_service.pb.h"

namespace attend::client {

// The fields of attend.v1.AttentionOptions, as given; tensors by the files that hold them.
struct AttentionFlags {
  bool causal = false;
  bool causal_top_left = false;
  std::optional<float> scale;
  std::optional<float> softcap;
  std::optional<std::int64_t> window_left;
  std::optional<std::int64_t> window_right;
  std::string valid_lengths;
  std::string mask;
  std::string bias;
  std::string alibi_slopes;
  std::string sinks;
  bool per_head = false;
  bool weights = false;
  std::vector<std::string> returned = {"output"};
};

// Declares the flags on `command`; they are read into `flags`, which must outlive parsing.
void AddAttentionFlags(CLI::App* command, AttentionFlags* flags);

// The options as the service takes them. Ranges are left to the server to judge. Errors: those of reading files.
absl::StatusOr<v1::AttentionOptions> BuildOptions(const AttentionFlags& flags);

// The name of a returned tensor (`attention_weights`) and back. OUTPUT_KIND_UNSPECIFIED for an unknown name.
const char* OutputName(v1::OutputKind kind);
v1::OutputKind OutputKindOf(const std::string& name);

// What --return and --weights ask for, each once, in the given order.
std::vector<v1::OutputKind> ReturnedKinds(const AttentionFlags& flags);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_ATTENTION_FLAGS_H_
