// ScaledDotProductAttention: bytes to job to bytes.
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attend/v1/attention_service.pb.h"
#include "core/attention/sdpa_problem.h"
#include "core/base/error.h"
#include "server/codec/attention_job.h"
#include "server/codec/decoders.h"
#include "server/codec/request_options.h"
#include "server/codec/request_reader.h"
#include "server/codec/response_buffer.h"
#include "server/codec/tensor_codec.h"

namespace attend::server {
namespace {

using Request = v1::ScaledDotProductAttentionRequest;
using Response = v1::ScaledDotProductAttentionResponse;

constexpr TensorRule kQueryRule = {
    "query", {Request::kQueryFieldNumber}, DataType::kFloat32, {2, 3, 4}, "[T, E], [H, T, E] or [B, H, T, E]"};
constexpr TensorRule kKeyRule = {
    "key", {Request::kKeyFieldNumber}, DataType::kFloat32, {2, 3, 4}, "[S, E], [K, S, E] or [B, K, S, E]"};
constexpr TensorRule kValueRule = {
    "value", {Request::kValueFieldNumber}, DataType::kFloat32, {2, 3, 4}, "[S, V], [K, S, V] or [B, K, S, V]"};

// A request whose tensors are checked.
struct SdpaInputs {
  InputTensor query;
  InputTensor key;
  InputTensor value;
  OptionInputs options;

  const InputTensor& First() const { return query; }
  std::vector<InputTensor*> Tensors() {
    return {&query, &key, &value, &options.mask, &options.bias, &options.alibi_slopes, &options.sinks};
  }
  SdpaProblem::Spec Spec() const;
};

// [T, E], [H, T, E] or [B, H, T, E] as four axes.
HeadsView View(const InputTensor& tensor) {
  if (!tensor) return {};
  return SplitHeads(tensor.floats(), tensor.rank() == 4 ? tensor.axis(0) : 1, tensor.rank() >= 3 ? tensor.axis(-3) : 1,
                    tensor.axis(-2), tensor.axis(-1));
}

SdpaProblem::Spec SdpaInputs::Spec() const { return {View(query), View(key), View(value), options.View()}; }

absl::Status CheckSameRank(const InputTensor& tensor, const char* field, const InputTensor& query) {
  if (!tensor || !query || tensor.rank() == query.rank()) return absl::OkStatus();
  const std::string shape = absl::StrCat(field, ".shape");
  return InvalidField(shape, absl::StrCat(shape, " has ", tensor.rank(), " axes, but query.shape has ", query.rank(),
                                          "; they must have as many"));
}

absl::StatusOr<SdpaInputs> CheckInputs(const RawSdpaRequest& raw, const WireBytes& bytes) {
  SdpaInputs inputs;
  const struct {
    const RawTensor& raw;
    const TensorRule& rule;
    InputTensor& tensor;
  } tensors[] = {
      {raw.query, kQueryRule, inputs.query}, {raw.key, kKeyRule, inputs.key}, {raw.value, kValueRule, inputs.value}};
  for (const auto& t : tensors) {
    absl::StatusOr<InputTensor> tensor = CheckTensor(t.raw, t.rule);
    if (!tensor.ok()) return tensor.status();
    t.tensor = *tensor;
    if (absl::Status status = CheckSameRank(t.tensor, t.rule.field, inputs.query); !status.ok()) return status;
  }
  absl::StatusOr<OptionInputs> options = CheckOptions(raw.options, bytes, View(inputs.query).batch);
  if (!options.ok()) return options.status();
  inputs.options = *std::move(options);
  return inputs;
}

// [(B,) (H,) rows, columns] with the axes that the query had; without columns if `columns` is 0.
class ResponseShape {
 public:
  ResponseShape(const SdpaProblem& problem, int query_rank) : problem_(problem), query_rank_(query_rank) {}

  std::vector<std::int64_t> PerHead(std::int64_t columns) const { return Make(query_rank_ >= 3, columns); }
  std::vector<std::int64_t> AllHeads(std::int64_t columns) const { return Make(false, columns); }

 private:
  std::vector<std::int64_t> Make(bool heads, std::int64_t columns) const {
    std::vector<std::int64_t> shape;
    if (query_rank_ == 4) shape.push_back(problem_.batch());
    if (heads) shape.push_back(problem_.num_heads());
    shape.push_back(problem_.query_length());
    if (columns != 0) shape.push_back(columns);
    return shape;
  }

  const SdpaProblem& problem_;
  int query_rank_;
};

struct SdpaMethod {
  using Raw = RawSdpaRequest;
  using Inputs = SdpaInputs;
  using Problem = SdpaProblem;

  static constexpr std::initializer_list<v1::OutputKind> kOutputs = {
      v1::OUTPUT_KIND_OUTPUT, v1::OUTPUT_KIND_ATTENTION_WEIGHTS, v1::OUTPUT_KIND_LOG_SUM_EXP, v1::OUTPUT_KIND_SCORES};

  static absl::Status Read(const WireBytes& bytes, Raw& raw) { return ReadSdpaRequest(bytes, raw); }
  static absl::StatusOr<Inputs> Check(const Raw& raw, const WireBytes& bytes) { return CheckInputs(raw, bytes); }

  static void AddTensors(const Problem& problem, const Inputs& inputs, const OutputSet& outputs,
                         ResponseBuffer& response) {
    const ResponseShape shape(problem, inputs.query.rank());
    const std::int64_t keys = problem.key_length();
    if (outputs.Has(v1::OUTPUT_KIND_OUTPUT)) {
      response.AddTensor(Response::kOutputFieldNumber, shape.PerHead(problem.value_dim()));
    }
    if (outputs.Has(v1::OUTPUT_KIND_ATTENTION_WEIGHTS)) {
      response.AddTensor(Response::kAttentionWeightsFieldNumber,
                         inputs.options.weights_per_head ? shape.PerHead(keys) : shape.AllHeads(keys));
    }
    if (outputs.Has(v1::OUTPUT_KIND_LOG_SUM_EXP)) response.AddTensor(Response::kLogSumExpFieldNumber, shape.PerHead(0));
    if (outputs.Has(v1::OUTPUT_KIND_SCORES)) response.AddTensor(Response::kScoresFieldNumber, shape.PerHead(keys));
  }

  static absl::Status Compute(const Problem& problem, bool weights_per_head, const ResponseBuffer& response,
                              const ComputeContext& context) {
    // What was not added has no elements, and a view of them is absent.
    const auto view = [&](int field_number, std::int64_t heads, std::int64_t columns) {
      return SplitHeads(response.Elements(field_number), problem.batch(), heads, problem.query_length(), columns);
    };
    const std::int64_t heads = problem.num_heads(), keys = problem.key_length();
    SdpaOutputs out;
    out.output = view(Response::kOutputFieldNumber, heads, problem.value_dim());
    out.scores = view(Response::kScoresFieldNumber, heads, keys);
    out.log_sum_exp = response.Elements(Response::kLogSumExpFieldNumber);
    MutableHeadsView& weights = weights_per_head ? out.attention_weights : out.averaged_weights;
    weights = view(Response::kAttentionWeightsFieldNumber, weights_per_head ? heads : 1, keys);
    return ComputeSdpa(problem, out, context);
  }
};

}  // namespace

Decoder SdpaDecoder() { return AttentionJob<SdpaMethod>::Decode; }

}  // namespace attend::server
