#include "server/requests/request_options.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/error.h"
#include "server/wire/enums.h"
#include "server/wire/option_fields.h"

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
constexpr TensorRule kKeyMaskRule = {"options.key_mask",
                                     kOptions / v1::AttentionOptions::kKeyMaskFieldNumber,
                                     TypeRule::kBool,
                                     {1, 2},
                                     "[S] or [B, S], in which any axis may be 1"};
constexpr TensorRule kBiasRule = {"options.bias",
                                  kOptions / v1::AttentionOptions::kBiasFieldNumber,
                                  TypeRule::kWidened,
                                  {2, 4},
                                  "[T, S] or [B, H, T, S], in which any axis may be 1"};

using PerHeadRules = std::array<TensorRule, std::size(kPerHeadOptions)>;

const PerHeadRules& RulesOfPerHead() {
  static const PerHeadRules rules = [] {
    PerHeadRules made{};
    for (std::size_t i = 0; i < made.size(); ++i) {
      const PerHeadOption& option = kPerHeadOptions[i];
      made[i] = {option.field, kOptions / OptionFieldNumber(option.field), TypeRule::kWidened, {1}, option.shape};
    }
    return made;
  }();
  return rules;
}

// The given [T, S] or [B, H, T, S] as four axes.
template <typename T>
BasicHeadsView<T> ScoresView(const InputTensor& tensor, T* elements) {
  if (!tensor) return {};
  const bool has_batch_and_heads = tensor.rank() == 4;
  return SplitHeads(elements, has_batch_and_heads ? tensor.axis(0) : 1, has_batch_and_heads ? tensor.axis(1) : 1,
                    tensor.axis(-2), tensor.axis(-1));
}

// The given [S] or [B, S] as four axes.
MaskView KeyMaskView(const InputTensor& tensor) {
  if (!tensor) return {};
  return SplitHeads(tensor.bools(), tensor.rank() == 2 ? tensor.axis(0) : 1, 1, 1, tensor.axis(-1));
}

PerHeadView PerHead(const InputTensor& tensor) {
  if (!tensor) return {};
  const auto size = static_cast<std::size_t>(tensor.num_elements());
  if (tensor.type() != DataType::kFloat64) return absl::MakeConstSpan(tensor.floats(), size);
  return absl::MakeConstSpan(static_cast<const double*>(tensor.elements()), size);
}

// FLOAT64 where the arithmetic is.
absl::Status CheckPerHeadType(const InputTensor& tensor, const char* option, bool is_double) {
  if (is_double || tensor.type() != DataType::kFloat64) return absl::OkStatus();
  const std::string field = absl::StrCat(option, ".data_type");
  return InvalidField(field, absl::StrCat(field,
                                          " is DATA_TYPE_FLOAT64, but the request is computed in FLOAT32, as its "
                                          "other tensors are not DATA_TYPE_FLOAT64; send ",
                                          option, " as DATA_TYPE_FLOAT32"));
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

// As many valid lengths as there are batch entries are looked at, of which another number is the core's to refuse, and
// cumulative lengths that are not very many more than the queries: both bounded by the request's own tensors.
absl::Status CheckLengths(const RawOptions& raw, const FirstTensor& first, OptionInputs& inputs) {
  const std::int64_t most = std::max(first.queries, kMaxEmptySequences) + 1;
  for (std::size_t i = 0; i < std::size(kLengthsOptions); ++i) {
    const LengthsOption& option = kLengthsOptions[i];
    const std::int64_t count = raw.lengths[i].count;
    if (count == 0) continue;
    if (option.cumulative && count > most) {
      return InvalidField(option.field, absl::StrCat(option.field, " has ", count, " entries; at most ", most,
                                                     " are accepted with this many queries"));
    }
    inputs.lengths[i] = {kOptions / OptionFieldNumber(option.field), count, option.cumulative || count == first.batch};
  }
  return absl::OkStatus();
}

}  // namespace

void OptionInputs::AppendTensors(InputTensors& tensors) {
  AppendPresent(mask, tensors);
  AppendPresent(key_mask, tensors);
  AppendPresent(bias, tensors);
  for (InputTensor& tensor : per_head) AppendPresent(tensor, tensors);
}

void OptionInputs::AppendLists(LengthLists& lists) {
  for (LengthList& list : lengths) {
    if (list.count() > 0) lists.push_back(&list);
  }
}

AttentionOptions OptionInputs::View() const {
  AttentionOptions options = values;
  options.mask = ScoresView(mask, mask.bools());
  options.key_mask = KeyMaskView(key_mask);
  options.bias = ScoresView(bias, bias.floats());
  options.bias.type = bias.type();
  for (std::size_t i = 0; i < std::size(kPerHeadOptions); ++i) {
    options.*kPerHeadOptions[i].member = PerHead(per_head[i]);
  }
  for (std::size_t i = 0; i < std::size(kLengthsOptions); ++i) {
    options.*kLengthsOptions[i].member = lengths[i].View();
  }
  return options;
}

absl::Status CheckOptions(const RawOptions& raw, const FirstTensor& first, OptionInputs& inputs) {
  inputs.values = raw.values;
  if (absl::Status s = MergeFloatScalars(raw.float_scalars, inputs.values); !s.ok()) return s;
  if (absl::Status s = SetEnumOptions(raw.enums, /*owner=*/"", inputs.values); !s.ok()) return s;
  const absl::StatusOr<bool> weights_per_head = CheckWeightsPerHead(raw.attention_weights_form);
  if (!weights_per_head.ok()) return weights_per_head.status();
  inputs.weights = {*weights_per_head, raw.top_k};
  if (absl::Status s = CheckTensorInto(raw.mask, kMaskRule, inputs.mask); !s.ok()) return s;
  if (absl::Status s = CheckTensorInto(raw.key_mask, kKeyMaskRule, inputs.key_mask); !s.ok()) return s;
  if (absl::Status s = CheckTensorInto(raw.bias, kBiasRule, inputs.bias); !s.ok()) return s;
  for (std::size_t i = 0; i < std::size(kPerHeadOptions); ++i) {
    if (!raw.per_head[i].present) continue;
    const TensorRule& rule = RulesOfPerHead()[i];
    if (absl::Status s = CheckTensorInto(raw.per_head[i], rule, inputs.per_head[i]); !s.ok()) return s;
    if (absl::Status s = CheckPerHeadType(inputs.per_head[i], rule.field, first.is_double); !s.ok()) return s;
  }
  return CheckLengths(raw, first, inputs);
}

absl::StatusOr<OutputSet> OutputSet::Check(const RawOutputs& raw, absl::Span<const v1::OutputKind> allowed,
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
