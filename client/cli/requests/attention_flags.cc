#include "client/cli/requests/attention_flags.h"

#include <CLI/Validators.hpp>
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace attend::client {
namespace {

constexpr ElementType kTypes[] = {ElementType::kFloat32, ElementType::kFloat64, ElementType::kFloat16,
                                  ElementType::kBFloat16};

// A field of AttentionOptions that is not here has the flag that its name makes.
constexpr FlagInfo kOptions[] = {
    {"causal", "--causal", "Hide the future; the last query sees every key (bottom-right)", "CAUSAL_MODE_BOTTOM_RIGHT"},
    {"causal", "--causal-top-left", "Hide the future; the first query sees the first key", "CAUSAL_MODE_TOP_LEFT"},
    {"causal", "--causal-none", "No causal mask, also where the named layer has one", "CAUSAL_MODE_NONE"},
    {"sliding_window_left", "--window-left", "Keys before its own position that a query sees"},
    {"sliding_window_right", "--window-right", "Keys after its own position that a query sees"},
    {"valid_lengths", "", "Valid leading keys of each sequence, as in 3,5 or a file of integers"},
    {"cumulative_query_lengths", "",
     "A ragged batch, sequences laid end to end: where each begins, and the end, as in 0,3,7 or a file"},
    {"cumulative_key_lengths", "", "The same for the keys (default for self-attention: those of the queries)"},
    {"mask", "", "Boolean file [T, S] or [B, H, T, S]; true is visible"},
    {"key_mask", "", "Boolean file [S] or [B, S] for padding; true is visible (the opposite of nn.MultiheadAttention)"},
    {"scale", "", "Factor on query . key (default: 1/sqrt(head size))"},
    {"softcap", "", "Cap each score x to softcap * tanh(x / softcap)"},
    {"bias", "", "File [T, S] or [B, H, T, S], added to the scores"},
    {"alibi_slopes", "", "One slope per head, as in 0.5,0.25 or a file"},
    {"sinks", "", "One sink logit per head, as in 0.1,0.2 or a file"},
    {"attention_weights_form", "--per-head", "Attention weights of each head instead of their mean",
     "ATTENTION_WEIGHTS_FORM_PER_HEAD"},
    {"top_k", "", "Return the N largest attention weights of each query and their keys as well", "", 1 << 20},
    {"precision", "", "exact, or fast where the server has kernels for it"},
};

const google::protobuf::EnumDescriptor& Kinds() { return *v1::OutputKind_descriptor(); }

}  // namespace

void AddAttentionFlags(CLI::App* command, AttentionFlags* flags) {
  std::vector<std::string> names;
  for (int i = 1; i < Kinds().value_count(); ++i) names.push_back(EnumWord(*Kinds().value(i)));
  std::vector<std::string> types;
  for (const ElementType type : kTypes) types.emplace_back(ElementTypeName(type));
  command
      ->add_option(
          "--dtype", flags->dtype,
          "Convert the inputs and the layer to this type first (default: sent as the files have them, integers "
          "as float32; where one input is float64, all of them and the layer are)")
      ->check(CLI::IsMember(types));
  flags->options.Declare(command, *v1::AttentionOptions::descriptor(), kOptions);
  command->add_option("--return", flags->returned, "Tensors to return, comma-separated")
      ->delimiter(',')
      ->check(CLI::IsMember(names))
      ->capture_default_str();
  command->add_flag("--weights", flags->weights, "Return attention_weights as well");
}

void AddHeadFlags(CLI::App* command, v1::LayerConfig* config) {
  command
      ->add_option_function<int>(
          "--num-heads,--heads", [config](int heads) { config->set_num_heads(heads); },
          "Query heads (default: what the file says; else 1 for the notebook's naming, and an error for others)")
      ->check(CLI::PositiveNumber);
  command
      ->add_option_function<int>(
          "--num-kv-heads,--kv-heads", [config](int heads) { config->set_num_kv_heads(heads); },
          "Key and value heads (default: what the file says, or --num-heads)")
      ->check(CLI::PositiveNumber);
}

std::optional<ElementType> GivenType(const AttentionFlags& flags) {
  for (const ElementType type : kTypes) {
    if (ElementTypeName(type) == flags.dtype) return type;
  }
  return std::nullopt;
}

std::string FlagOfField(const std::string& field) {
  // Fields of other messages, and those whose flags are not called as they are. Longer names stand before their
  // prefixes.
  static constexpr FlagInfo kOthers[] = {
      {"embeddings", "--input"},
      {"layer_name", "--layer"},
      {"layer_etag", "--layer-etag"},
      {"layer", "--layer"},
      {"outputs", "--return"},
      {"partials", "--partial"},
      {"config.num_heads", "--num-heads"},
      {"config.num_kv_heads", "--num-kv-heads"},
      {"config", "--config"},
      {"name", "NAME"},
      {"chunk", "FILE"},
  };
  const bool is_option = absl::StartsWith(field, "options.");
  const std::string own(absl::StripPrefix(absl::StripPrefix(field, "options."), "header."));
  const std::string first = own.substr(0, own.find_first_of(".["));
  const absl::Span<const FlagInfo> table = is_option ? absl::MakeConstSpan(kOptions) : absl::MakeConstSpan(kOthers);
  for (const FlagInfo& info : table) {
    if ((info.field == first || own == info.field) && *info.flag != '\0') return info.flag;
  }
  return absl::StrCat("--", absl::StrReplaceAll(first, {{"_", "-"}}));
}

std::vector<std::string> OutputNames(v1::OutputKind kind) {
  std::vector<std::string> names = {EnumWord(*Kinds().FindValueByNumber(kind))};
  if (kind == v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS) names.emplace_back("top_attention_indices");
  return names;
}

absl::StatusOr<std::vector<v1::OutputKind>> ReturnedKinds(const AttentionFlags& flags) {
  std::vector<v1::OutputKind> kinds;
  const auto add = [&kinds](int kind) {
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) kinds.push_back(static_cast<v1::OutputKind>(kind));
  };
  for (const std::string& name : flags.returned) {
    for (int i = 1; i < Kinds().value_count(); ++i) {
      if (EnumWord(*Kinds().value(i)) == name) add(Kinds().value(i)->number());
    }
  }
  if (flags.weights) add(v1::OUTPUT_KIND_ATTENTION_WEIGHTS);
  if (flags.options.Given("top_k")) {
    add(v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS);
  } else if (std::find(kinds.begin(), kinds.end(), v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS) != kinds.end()) {
    return absl::InvalidArgumentError("top_attention_weights need --top-k N, the number of weights of each query");
  }
  return kinds;
}

}  // namespace attend::client
