#include "client/cli/requests/attention_flags.h"

#include <CLI/Validators.hpp>
#include <algorithm>
#include <utility>

#include "client/cli/requests/tensor_source.h"
#include "client/lib/tensor.h"

namespace attend::client {
namespace {

constexpr ElementType kTypes[] = {ElementType::kFloat32, ElementType::kFloat64, ElementType::kFloat16,
                                  ElementType::kBFloat16};
constexpr int kMaxTopK = 1 << 20;  // The service's own limit.

struct KindName {
  v1::OutputKind kind;
  const char* name;
  const char* second = nullptr;  // A kind may return two tensors.
};
constexpr KindName kKinds[] = {
    {v1::OUTPUT_KIND_OUTPUT, "output"},
    {v1::OUTPUT_KIND_ATTENTION_WEIGHTS, "attention_weights"},
    {v1::OUTPUT_KIND_LOG_SUM_EXP, "log_sum_exp"},
    {v1::OUTPUT_KIND_QUERY, "query"},
    {v1::OUTPUT_KIND_KEY, "key"},
    {v1::OUTPUT_KIND_VALUE, "value"},
    {v1::OUTPUT_KIND_SCORES, "scores"},
    {v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS, "top_attention_weights", "top_attention_indices"},
};

// Moves a loaded tensor into a message.
absl::Status Place(absl::StatusOr<Tensor> tensor, v1::Tensor* message) {
  return tensor.ok() ? (*std::move(tensor)).MoveTo(message) : tensor.status();
}

// A mask is BOOL on the wire; files often hold it as bytes.
absl::StatusOr<Tensor> LoadMask(const std::string& source) {
  absl::StatusOr<Tensor> tensor = LoadTensor(source);
  if (!tensor.ok() || tensor->type() == ElementType::kBool) return tensor;
  if (tensor->type() != ElementType::kUint8 && tensor->type() != ElementType::kInt8) {
    return absl::InvalidArgumentError("the mask " + source + " is " + tensor->Describe() +
                                      "; expected bool (true is visible); additive masks go to --bias");
  }
  return Tensor::Create(ElementType::kBool, tensor->shape(), tensor->bytes());
}

// Reads `source` into `lengths`, unless it is empty.
absl::Status ReadLengths(const std::string& source, google::protobuf::RepeatedField<std::int64_t>* lengths) {
  if (source.empty()) return absl::OkStatus();
  const absl::StatusOr<std::vector<std::int64_t>> list = LoadIntegerList(source);
  if (list.ok()) lengths->Assign(list->begin(), list->end());
  return list.status();
}

v1::CausalMode Causal(const AttentionFlags& flags) {
  if (flags.causal_top_left) return v1::CAUSAL_MODE_TOP_LEFT;
  return flags.causal ? v1::CAUSAL_MODE_BOTTOM_RIGHT : v1::CAUSAL_MODE_UNSPECIFIED;
}

void AddVisibilityFlags(CLI::App* command, AttentionFlags* flags) {
  CLI::Option* causal =
      command->add_flag("--causal", flags->causal, "Hide the future; the last query sees every key (bottom-right)");
  command->add_flag("--causal-top-left", flags->causal_top_left, "Hide the future; the first query sees the first key")
      ->excludes(causal);
  command->add_option("--window-left", flags->window_left, "Keys before its own position that a query sees");
  command->add_option("--window-right", flags->window_right, "Keys after its own position that a query sees");
  command->add_option("--valid-lengths", flags->valid_lengths,
                      "Valid leading keys of each sequence, as in 3,5 or a file of integers");
  command->add_option(
      "--cumulative-query-lengths", flags->cumulative_query_lengths,
      "A ragged batch, sequences laid end to end: where each begins, and the end, as in 0,3,7 or a file");
  command->add_option("--cumulative-key-lengths", flags->cumulative_key_lengths,
                      "The same for the keys (default for self-attention: those of the queries)");
  command->add_option("--mask", flags->mask, "Boolean file [T, S] or [B, H, T, S]; true is visible");
}

}  // namespace

void AddAttentionFlags(CLI::App* command, AttentionFlags* flags) {
  std::vector<std::string> names;
  for (const KindName& entry : kKinds) names.push_back(entry.name);
  std::vector<std::string> types;
  for (const ElementType type : kTypes) types.emplace_back(ElementTypeName(type));
  command
      ->add_option(
          "--dtype", flags->dtype,
          "Convert the inputs and the layer to this type first (default: sent as the files have them, integers "
          "as float32; where one input is float64, all of them and the layer are)")
      ->check(CLI::IsMember(types));
  AddVisibilityFlags(command, flags);
  command->add_option("--scale", flags->scale, "Factor on query . key (default: 1/sqrt(head size))");
  command->add_option("--softcap", flags->softcap, "Cap each score x to softcap * tanh(x / softcap)");
  command->add_option("--bias", flags->bias, "File [T, S] or [B, H, T, S], added to the scores");
  command->add_option("--alibi-slopes", flags->alibi_slopes, "One slope per head, as in 0.5,0.25 or a file");
  command->add_option("--sinks", flags->sinks, "One sink logit per head, as in 0.1,0.2 or a file");
  command->add_option("--return", flags->returned, "Tensors to return, comma-separated")
      ->delimiter(',')
      ->check(CLI::IsMember(names))
      ->capture_default_str();
  command->add_flag("--weights", flags->weights, "Return attention_weights as well");
  command
      ->add_option("--top-k", flags->top_k,
                   "Return the N largest attention weights of each query and their keys as well")
      ->check(CLI::Range(1, kMaxTopK))
      ->type_name("N");
  command->add_flag("--per-head", flags->per_head, "Attention weights of each head instead of their mean");
}

absl::StatusOr<v1::AttentionOptions> BuildOptions(const AttentionFlags& flags, bool is_double) {
  v1::AttentionOptions options;
  options.set_causal(Causal(flags));
  if (flags.scale.has_value()) options.set_scale(*flags.scale);
  if (flags.softcap.has_value()) options.set_softcap(*flags.softcap);
  if (flags.window_left.has_value()) options.set_sliding_window_left(*flags.window_left);
  if (flags.window_right.has_value()) options.set_sliding_window_right(*flags.window_right);
  if (flags.per_head) options.set_attention_weights_form(v1::ATTENTION_WEIGHTS_FORM_PER_HEAD);
  if (flags.top_k.has_value()) options.set_top_k(*flags.top_k);
  absl::Status status = ReadLengths(flags.valid_lengths, options.mutable_valid_lengths());
  status.Update(ReadLengths(flags.cumulative_query_lengths, options.mutable_cumulative_query_lengths()));
  status.Update(ReadLengths(flags.cumulative_key_lengths, options.mutable_cumulative_key_lengths()));
  if (!flags.mask.empty()) status.Update(Place(LoadMask(flags.mask), options.mutable_mask()));
  if (!flags.bias.empty()) status.Update(Place(LoadFloats(flags.bias, is_double), options.mutable_bias()));
  if (!flags.alibi_slopes.empty()) {
    status.Update(Place(LoadFloatList(flags.alibi_slopes), options.mutable_alibi_slopes()));
  }
  if (!flags.sinks.empty()) status.Update(Place(LoadFloatList(flags.sinks), options.mutable_sinks()));
  if (!status.ok()) return status;
  return options;
}

std::optional<ElementType> GivenType(const AttentionFlags& flags) {
  for (const ElementType type : kTypes) {
    if (ElementTypeName(type) == flags.dtype) return type;
  }
  return std::nullopt;
}

absl::Status CheckTopK(const AttentionFlags& flags, const std::vector<v1::OutputKind>& kinds) {
  const bool wanted = std::find(kinds.begin(), kinds.end(), v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS) != kinds.end();
  if (!wanted || flags.top_k.has_value()) return absl::OkStatus();
  return absl::InvalidArgumentError("top_attention_weights need --top-k N, the number of weights of each query");
}

std::vector<std::string> OutputNames(v1::OutputKind kind) {
  for (const KindName& entry : kKinds) {
    if (entry.kind != kind) continue;
    return entry.second == nullptr ? std::vector<std::string>{entry.name}
                                   : std::vector<std::string>{entry.name, entry.second};
  }
  return {};
}

v1::OutputKind OutputKindOf(const std::string& name) {
  for (const KindName& entry : kKinds) {
    if (entry.name == name || (entry.second != nullptr && entry.second == name)) return entry.kind;
  }
  return v1::OUTPUT_KIND_UNSPECIFIED;
}

std::vector<v1::OutputKind> ReturnedKinds(const AttentionFlags& flags) {
  std::vector<v1::OutputKind> kinds;
  const auto add = [&kinds](v1::OutputKind kind) {
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) kinds.push_back(kind);
  };
  for (const std::string& name : flags.returned) add(OutputKindOf(name));
  if (flags.weights) add(v1::OUTPUT_KIND_ATTENTION_WEIGHTS);
  if (flags.top_k.has_value()) add(v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS);
  return kinds;
}

}  // namespace attend::client
