// ScaledDotProductAttention: bytes to job to bytes.
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attend/v1/attention_service.pb.h"
#include "core/base/error.h"
#include "core/compute/compute_sdpa.h"
#include "core/problem/sdpa_problem.h"
#include "server/requests/attention_job.h"
#include "server/requests/decoders.h"
#include "server/requests/partial_inputs.h"
#include "server/requests/request_options.h"
#include "server/requests/tensor_codec.h"
#include "server/wire/request_reader.h"
#include "server/wire/response_buffer.h"

namespace attend::server {
namespace {

using Request = v1::ScaledDotProductAttentionRequest;
using Response = v1::ScaledDotProductAttentionResponse;

constexpr TensorRule MakeRule(const char* field, std::uint32_t number, const char* shapes) {
  return {field, {number}, TypeRule::kNumbers, {2, 3, 4}, shapes};
}

// Of query, key and value, by layout.
constexpr TensorRule kHeadsFirst[] = {
    MakeRule("query", Request::kQueryFieldNumber, "[T, E], [H, T, E] or [B, H, T, E]"),
    MakeRule("key", Request::kKeyFieldNumber, "[S, E], [K, S, E] or [B, K, S, E]"),
    MakeRule("value", Request::kValueFieldNumber, "[S, V], [K, S, V] or [B, K, S, V]"),
};
constexpr TensorRule kTokensFirst[] = {
    MakeRule("query", Request::kQueryFieldNumber, "[T, E], [T, H, E] or [B, T, H, E] with TENSOR_LAYOUT_BTHE"),
    MakeRule("key", Request::kKeyFieldNumber, "[S, E], [S, K, E] or [B, S, K, E] with TENSOR_LAYOUT_BTHE"),
    MakeRule("value", Request::kValueFieldNumber, "[S, V], [S, K, V] or [B, S, K, V] with TENSOR_LAYOUT_BTHE"),
};

// Elements in memory as four axes, whatever the order of heads and tokens.
template <typename Elements>
auto ViewOf(Elements* elements, DataType type, bool tokens_first, std::int64_t batch, std::int64_t heads,
            std::int64_t length, std::int64_t dim) {
  return tokens_first ? MergedTypedHeads(elements, type, batch, heads, length, dim)
                      : SplitTypedHeads(elements, type, batch, heads, length, dim);
}

// A request whose tensors are checked.
struct SdpaInputs {
  InputTensor query;
  InputTensor key;
  InputTensor value;
  bool tokens_first = false;  // TENSOR_LAYOUT_BTHE.
  OptionInputs options;
  PartialInputs partials;

  const InputTensor& First() const { return query; }
  static std::string_view LayerEtag() { return {}; }
  InputTensors Tensors() {
    InputTensors tensors = {&query, &key, &value, &partials.output, &partials.log_sum_exp};
    options.AppendTensors(tensors);
    return tensors;
  }
  LengthLists Lists() {
    LengthLists lists;
    options.AppendLists(lists);
    return lists;
  }
  SdpaProblem::Spec Spec() const;
  static absl::Status CheckLists() { return absl::OkStatus(); }
  absl::Status CheckWith(const OutputSet& outputs) const { return partials.CheckWith(outputs); }
};

// Two to four axes as four.
TypedHeadsView View(const InputTensor& tensor, bool tokens_first) {
  if (!tensor) return {};
  const std::int64_t batch = tensor.rank() == 4 ? tensor.axis(0) : 1;
  const std::int64_t outer = tensor.rank() >= 3 ? tensor.axis(-3) : 1, inner = tensor.axis(-2);
  const bool swapped = tokens_first && tensor.rank() >= 3;
  return ViewOf(tensor.elements(), tensor.type(), swapped, batch, swapped ? inner : outer, swapped ? outer : inner,
                tensor.axis(-1));
}

SdpaProblem::Spec SdpaInputs::Spec() const {
  return {View(query, tokens_first), View(key, tokens_first), View(value, tokens_first), options.View()};
}

absl::StatusOr<bool> CheckTokensFirst(const RawSdpaRequest& raw) {
  switch (raw.layout) {
    case v1::TENSOR_LAYOUT_UNSPECIFIED:
    case v1::TENSOR_LAYOUT_BHTE: return false;
    case v1::TENSOR_LAYOUT_BTHE: break;
    default:
      return InvalidField("layout", absl::StrCat("layout is ", raw.layout,
                                                 ", which is not a known TensorLayout; it must be TENSOR_LAYOUT_BHTE "
                                                 "(1), TENSOR_LAYOUT_BTHE (2), or absent"));
  }
  if (!raw.partials.present) return true;
  return InvalidField("layout",
                      "layout is TENSOR_LAYOUT_BTHE, but partials are merged in TENSOR_LAYOUT_BHTE alone; send query, "
                      "key, value and partials in that layout");
}

absl::Status CheckSameRank(const InputTensor& tensor, const char* field, const InputTensor& query) {
  if (!tensor || !query || tensor.rank() == query.rank()) return absl::OkStatus();
  const std::string shape = absl::StrCat(field, ".shape");
  return InvalidField(shape, absl::StrCat(shape, " has ", tensor.rank(), " axes, but query.shape has ", query.rank(),
                                          "; they must have as many"));
}

absl::Status CheckInputs(const RawSdpaRequest& raw, SdpaInputs& inputs) {
  const absl::StatusOr<bool> tokens_first = CheckTokensFirst(raw);
  if (!tokens_first.ok()) return tokens_first.status();
  inputs.tokens_first = *tokens_first;
  const auto& rules = *tokens_first ? kTokensFirst : kHeadsFirst;
  const struct {
    const RawTensor& raw;
    const TensorRule& rule;
    InputTensor& tensor;
  } tensors[] = {
      {raw.query, rules[0], inputs.query}, {raw.key, rules[1], inputs.key}, {raw.value, rules[2], inputs.value}};
  for (const auto& t : tensors) {
    if (absl::Status status = CheckTensorInto(t.raw, t.rule, t.tensor); !status.ok()) return status;
    if (absl::Status status = CheckSameRank(t.tensor, t.rule.field, inputs.query); !status.ok()) return status;
  }
  const TypedHeadsView query = View(inputs.query, *tokens_first);
  const FirstTensor first{query.batch, query.length, query.type == DataType::kFloat64};
  if (absl::Status s = CheckOptions(raw.options, first, inputs.options); !s.ok()) return s;
  if (!raw.partials.present) return absl::OkStatus();
  absl::StatusOr<PartialInputs> partials = CheckPartials(raw.partials, inputs.query, inputs.value);
  if (!partials.ok()) return partials.status();
  inputs.partials = *partials;
  return absl::OkStatus();
}

// [(B,) (H,) rows, columns] with the axes that the query had; without columns if `columns` is 0.
class ResponseShape {
 public:
  ResponseShape(const SdpaProblem& problem, int query_rank) : problem_(problem), query_rank_(query_rank) {}

  Axes PerHead(std::int64_t columns) const { return Make(query_rank_ >= 3, columns); }
  Axes AllHeads(std::int64_t columns) const { return Make(false, columns); }
  // That of the output, in the layout of the query.
  Axes Output(bool tokens_first) const {
    Axes shape = PerHead(problem_.value_dim());
    if (tokens_first && query_rank_ >= 3) std::swap(shape[shape.size() - 3], shape[shape.size() - 2]);
    return shape;
  }

 private:
  Axes Make(bool heads, std::int64_t columns) const {
    Axes shape;
    if (query_rank_ == 4) shape.push_back(problem_.batch());
    if (heads) shape.push_back(problem_.num_heads());
    shape.push_back(problem_.query_length());
    if (columns != 0) shape.push_back(columns);
    return shape;
  }

  const SdpaProblem& problem_;
  int query_rank_;
};

// What computing needs besides the problem.
struct SdpaExtras {
  WeightsForm weights;
  bool tokens_first = false;
  std::vector<PartialAttention> partials;
};

struct SdpaMethod {
  using Raw = RawSdpaRequest;
  using Inputs = SdpaInputs;
  using Problem = SdpaProblem;
  using Extras = SdpaExtras;

  static constexpr v1::OutputKind kOutputs[] = {v1::OUTPUT_KIND_OUTPUT, v1::OUTPUT_KIND_ATTENTION_WEIGHTS,
                                                v1::OUTPUT_KIND_LOG_SUM_EXP, v1::OUTPUT_KIND_SCORES,
                                                v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS};

  Receipts receipts;

  static FastKernels UsedKernels(const Problem& problem, FastKernels available) {
    return FastKernelsOf(problem, available);
  }
  static absl::Status Read(const WireBytes& bytes, Raw& raw) { return ReadSdpaRequest(bytes, raw); }
  static absl::Status Check(const Raw& raw, const WireBytes& /*bytes*/, std::string_view /*tenant*/, Inputs& inputs) {
    return CheckInputs(raw, inputs);
  }
  static Extras MakeExtras(const Inputs& inputs) {
    return {inputs.options.weights, inputs.tokens_first, inputs.partials.Parts()};
  }

  // Output and log-sum-exp are both needed for merging, asked for or not.
  static double ExtraBytes(const Problem& problem, const Inputs& inputs) {
    if (!inputs.partials) return 0;
    const double rows = static_cast<double>(problem.batch()) * static_cast<double>(problem.num_heads()) *
                        static_cast<double>(problem.query_length());
    return rows * sizeof(float) * (1 + static_cast<double>(problem.value_dim()));
  }

  static void AddTensors(const Problem& problem, const Inputs& inputs, const OutputSet& outputs,
                         ResponseBuffer& response) {
    const ResponseShape shape(problem, inputs.query.rank());
    const WeightsForm& form = inputs.options.weights;
    const v1::DataType arithmetic = problem.is_double() ? v1::DATA_TYPE_FLOAT64 : v1::DATA_TYPE_FLOAT32;
    const auto add = [&](v1::OutputKind kind, int field_number, v1::DataType type, bool per_head,
                         std::int64_t columns) {
      if (!outputs.Has(kind)) return;
      response.AddTensor(field_number, type, per_head ? shape.PerHead(columns) : shape.AllHeads(columns));
    };
    if (outputs.Has(v1::OUTPUT_KIND_OUTPUT)) {
      response.AddTensor(Response::kOutputFieldNumber, ToWire(inputs.query.type()), shape.Output(inputs.tokens_first));
    }
    add(v1::OUTPUT_KIND_ATTENTION_WEIGHTS, Response::kAttentionWeightsFieldNumber, arithmetic, form.per_head,
        problem.score_columns());
    add(v1::OUTPUT_KIND_LOG_SUM_EXP, Response::kLogSumExpFieldNumber, v1::DATA_TYPE_FLOAT32, true, 0);
    add(v1::OUTPUT_KIND_SCORES, Response::kScoresFieldNumber, arithmetic, true, problem.score_columns());
    add(v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS, Response::kTopAttentionWeightsFieldNumber, arithmetic, form.per_head,
        form.top_k);
    add(v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS, Response::kTopAttentionIndicesFieldNumber, v1::DATA_TYPE_INT32,
        form.per_head, form.top_k);
  }

  static absl::Status Compute(const Problem& problem, const Extras& extras, const ResponseBuffer& response,
                              const ComputeContext& context) {
    SdpaOutputs out;
    out.output = ViewOf(response.Elements(Response::kOutputFieldNumber), problem.query().type, extras.tokens_first,
                        problem.batch(), problem.num_heads(), problem.query_length(), problem.value_dim());
    out.log_sum_exp = response.Floats(Response::kLogSumExpFieldNumber);
    const RowOutputs<Response> rows(problem, extras.weights, response);
    out.scores = rows.Scores();
    out.attention_weights = rows.PerHeadWeights();
    out.averaged_weights = rows.AveragedWeights();
    out.top_weights = rows.Top();
    return extras.partials.empty() ? ComputeSdpa(problem, out, context)
                                   : ComputeAndMerge(problem, extras.partials, out, context);
  }
};

}  // namespace

Decoder SdpaDecoder(const KernelChoice& kernels) { return AttentionJob<SdpaMethod>::MakeDecoder({Receipts(kernels)}); }

Estimator SdpaEstimator(const KernelChoice& kernels) {
  return AttentionJob<SdpaMethod>::MakeEstimator({Receipts(kernels)});
}

}  // namespace attend::server
