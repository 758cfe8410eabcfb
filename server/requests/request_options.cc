#include "server/requests/request_options.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/error.h"

namespace attend::server {
namespace {

// Field numbers are the same in both kinds of request.
constexpr FieldPath kOptions = {v1::AttendRequest::kOptionsFieldNumber};
static_assert(int{v1::AttendRequest::kOptionsFieldNumber} ==
              int{v1::ScaledDotProductAttentionRequest::kOptionsFieldNumber});

constexpr TensorRule kMaskRule = {"options.mask",
                                  kOptions / v1::AttentionOptions::kMaskFieldNumber,
                                  TypeRule::kBool,
                                  {2, 4},
                                  "[T, S] or [B, H, T, S], in which any axis may be 1"};
constexpr TensorRule kBiasRule = {"options.bias",
                                  kOptions / v1::AttentionOptions::kBiasFieldNumber,
                                  TypeRule::kBias,
                                  {2, 4},
                                  "[T, S] or [B, H, T, S], in which any axis may be 1"};
constexpr TensorRule kAlibiSlopesRule = {"options.alibi_slopes",
                                         kOptions / v1::AttentionOptions::kAlibiSlopesFieldNumber,
                                         TypeRule::kFloats,
                                         {1},
                                         "[H], one slope for each query head"};
constexpr TensorRule kSinksRule = {"options.sinks",
                                   kOptions / v1::AttentionOptions::kSinksFieldNumber,
                                   TypeRule::kFloats,
                                   {1},
                                   "[H], one logit for each query head"};

constexpr std::int64_t kMaxTopK = 1 << 20;

// The given [T, S] or [B, H, T, S] as four axes.
template <typename T>
BasicHeadsView<T> ScoresView(const InputTensor& tensor, T* elements) {
  if (!tensor) return {};
  const bool has_batch_and_heads = tensor.rank() == 4;
  return SplitHeads(elements, has_batch_and_heads ? tensor.axis(0) : 1, has_batch_and_heads ? tensor.axis(1) : 1,
                    tensor.axis(-2), tensor.axis(-1));
}

absl::Span<const float> PerHead(const InputTensor& tensor) {
  if (!tensor) return {};
  return {tensor.floats(), static_cast<std::size_t>(tensor.num_elements())};
}

absl::StatusOr<CausalMode> CheckCausal(std::int32_t causal) {
  switch (causal) {
    case v1::CAUSAL_MODE_UNSPECIFIED:
    case v1::CAUSAL_MODE_NONE: return CausalMode::kNone;
    case v1::CAUSAL_MODE_BOTTOM_RIGHT: return CausalMode::kBottomRight;
    case v1::CAUSAL_MODE_TOP_LEFT: return CausalMode::kTopLeft;
    default:
      return InvalidField("options.causal",
                          absl::StrCat("options.causal is ", causal,
                                       ", which is not a known mode; it must be CAUSAL_MODE_BOTTOM_RIGHT (1), "
                                       "CAUSAL_MODE_TOP_LEFT (2), CAUSAL_MODE_NONE (3), or absent"));
  }
}

absl::StatusOr<bool> CheckWeightsPerHead(std::int32_t form) {
  switch (form) {
    case v1::ATTENTION_WEIGHTS_FORM_UNSPECIFIED:
    case v1::ATTENTION_WEIGHTS_FORM_AVERAGED: return false;
    case v1::ATTENTION_WEIGHTS_FORM_PER_HEAD: return true;
    default:
      return InvalidField("options.attention_weights_form",
                          absl::StrCat("options.attention_weights_form is ", form,
                                       ", which is not a known form; it must be ATTENTION_WEIGHTS_FORM_AVERAGED (1) or "
                                       "ATTENTION_WEIGHTS_FORM_PER_HEAD (2)"));
  }
}

// What goes wrong at the first element that is not allowed.
absl::Status InvalidOutput(std::int64_t index, std::int32_t kind, absl::Span<const v1::OutputKind> allowed) {
  const std::string field = absl::StrCat("outputs[", index, "]");
  const std::string names =
      absl::StrJoin(allowed, ", ", [](std::string* out, v1::OutputKind k) { out->append(v1::OutputKind_Name(k)); });
  const std::string given =
      v1::OutputKind_IsValid(kind) ? v1::OutputKind_Name(static_cast<v1::OutputKind>(kind)) : absl::StrCat(kind);
  return InvalidField(
      field, absl::StrCat(field, " is ", given, ", which this method cannot return; it must be one of ", names));
}

absl::Status CheckTopK(std::int64_t top_k, bool is_asked_for) {
  constexpr char kField[] = "options.top_k";
  if (is_asked_for && (top_k < 1 || top_k > kMaxTopK)) {
    return InvalidField(
        kField, absl::StrCat(kField, " is ", top_k, "; OUTPUT_KIND_TOP_ATTENTION_WEIGHTS needs a number between 1 and ",
                             kMaxTopK));
  }
  if (is_asked_for || top_k == 0) return absl::OkStatus();
  return InvalidField(kField, absl::StrCat(kField, " is ", top_k,
                                           ", but outputs does not name OUTPUT_KIND_TOP_ATTENTION_WEIGHTS, which is "
                                           "all that it is for"));
}

}  // namespace

AttentionOptions OptionInputs::View() const {
  AttentionOptions options = scalars;
  options.valid_lengths = lengths.valid.View();
  options.cumulative_query_lengths = lengths.cumulative_queries.View();
  options.cumulative_key_lengths = lengths.cumulative_keys.View();
  options.mask = ScoresView(mask, mask.bools());
  options.bias = ScoresView(bias, bias.floats());
  options.bias.type = bias.type();
  options.alibi_slopes = PerHead(alibi_slopes);
  options.sinks = PerHead(sinks);
  return options;
}

absl::StatusOr<OptionInputs> CheckOptions(const RawOptions& raw, const WireBytes& bytes, const FirstAxes& first) {
  OptionInputs inputs;
  const absl::StatusOr<CausalMode> causal = CheckCausal(raw.causal);
  if (!causal.ok()) return causal.status();
  inputs.scalars = {.scale = raw.scale,
                    .causal = *causal,
                    .sliding_window_left = raw.sliding_window_left,
                    .sliding_window_right = raw.sliding_window_right,
                    .softcap = raw.softcap};
  inputs.sets_causal = raw.causal != v1::CAUSAL_MODE_UNSPECIFIED;
  const absl::StatusOr<bool> weights_per_head = CheckWeightsPerHead(raw.attention_weights_form);
  if (!weights_per_head.ok()) return weights_per_head.status();
  inputs.weights = {*weights_per_head, raw.top_k};

  const struct {
    const RawTensor& raw;
    const TensorRule& rule;
    InputTensor& tensor;
  } tensors[] = {{raw.mask, kMaskRule, inputs.mask},
                 {raw.bias, kBiasRule, inputs.bias},
                 {raw.alibi_slopes, kAlibiSlopesRule, inputs.alibi_slopes},
                 {raw.sinks, kSinksRule, inputs.sinks}};
  for (const auto& t : tensors) {
    absl::StatusOr<InputTensor> tensor = CheckTensor(t.raw, t.rule);
    if (!tensor.ok()) return tensor.status();
    t.tensor = *tensor;
  }
  absl::StatusOr<Lengths> lengths = CheckLengths(raw, bytes, first);
  if (!lengths.ok()) return lengths.status();
  inputs.lengths = *std::move(lengths);
  return inputs;
}

absl::StatusOr<OutputSet> CheckOutputs(const RawOutputs& raw, absl::Span<const v1::OutputKind> allowed,
                                       const WeightsForm& weights) {
  std::optional<RawOutputs::Unknown> wrong = raw.unknown;
  OutputSet set;
  for (int kind = 0; kind < RawOutputs::kNumKinds; ++kind) {
    const std::int64_t index = raw.first_index[static_cast<std::size_t>(kind)];
    if (index < 0) continue;
    set.bits_ |= 1u << kind;
    const bool is_allowed = std::find(allowed.begin(), allowed.end(), kind) != allowed.end();
    if (!is_allowed && (!wrong || index < wrong->index)) wrong = RawOutputs::Unknown{index, kind};
  }
  if (wrong) return InvalidOutput(wrong->index, wrong->kind, allowed);
  if (raw.count == 0) set.bits_ = 1u << v1::OUTPUT_KIND_OUTPUT;
  if (absl::Status s = CheckTopK(weights.top_k, set.Has(v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS)); !s.ok()) return s;
  return set;
}

absl::Status CheckRequestSize(std::int64_t request_bytes, const Limits& limits) {
  if (request_bytes <= limits.max_request_bytes) return absl::OkStatus();
  return LimitExceeded("--max-request-bytes",
                       absl::StrCat("the request has ", request_bytes, " bytes, but this server takes at most ",
                                    limits.max_request_bytes, " (--max-request-bytes)"));
}

absl::Status CheckCost(const RequestCost& cost, const Limits& limits) {
  if (cost.response_bytes > static_cast<double>(limits.max_response_bytes)) {
    return LimitExceeded("--max-response-bytes",
                         absl::StrFormat("the response would have %.0f bytes, but this server sends at most %d "
                                         "(--max-response-bytes); ask for fewer outputs or send fewer tokens",
                                         cost.response_bytes, limits.max_response_bytes));
  }
  if (cost.memory_bytes > static_cast<double>(limits.max_request_memory_bytes)) {
    return LimitExceeded("--max-request-memory-bytes",
                         absl::StrFormat("the request needs %.0f bytes of memory for its inputs, outputs and scratch, "
                                         "but this server spends at most %d (--max-request-memory-bytes)",
                                         cost.memory_bytes, limits.max_request_memory_bytes));
  }
  if (cost.flops > limits.max_request_flops) {
    return LimitExceeded("--max-request-flops",
                         absl::StrFormat("the request takes %.0f floating-point operations, but this server spends at "
                                         "most %.0f (--max-request-flops)",
                                         cost.flops, limits.max_request_flops));
  }
  return absl::OkStatus();
}

}  // namespace attend::server
