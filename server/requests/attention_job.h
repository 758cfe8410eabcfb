// What the methods that compute have in common: the order in which a request is checked, and the job it becomes.
#ifndef ATTEND_SERVER_REQUESTS_ATTENTION_JOB_H_
#define ATTEND_SERVER_REQUESTS_ATTENTION_JOB_H_

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/error.h"
#include "core/base/limits.h"
#include "core/problem/key_visibility.h"
#include "core/tensor/aligned_buffer.h"
#include "server/requests/decoders.h"
#include "server/requests/length_list.h"
#include "server/requests/receipt.h"
#include "server/requests/request_options.h"
#include "server/requests/tensor_codec.h"
#include "server/rpc/job.h"
#include "server/wire/request_reader.h"
#include "server/wire/response_buffer.h"
#include "server/wire/wire_format.h"

namespace attend::server {

// What is different between methods that compute. `Raw` is the request as read; `Inputs` the request with its tensors
// checked, of which `First` decides the form of the response; `Problem` the core's; `Extras` what of the inputs
// computing needs besides the problem, and what keeps the problem's views alive.
template <typename M>
concept AttentionMethod = requires(const M& method, const WireBytes& bytes, typename M::Raw& raw,
                                   typename M::Inputs& inputs, typename M::Problem& problem,
                                   const typename M::Extras& extras, const OutputSet& outputs, ResponseBuffer& response,
                                   const ComputeContext& context, std::string_view tenant) {
  { M::Read(bytes, raw) } -> std::same_as<absl::Status>;
  { method.receipts } -> std::same_as<const Receipts&>;
  // `inputs` are default ones before.
  { method.Check(raw, bytes, tenant, inputs) } -> std::same_as<absl::Status>;
  // All tensors and lists that the request has, and maybe some that are absent.
  { inputs.Tensors() } -> std::same_as<InputTensors>;
  { inputs.Lists() } -> std::same_as<LengthLists>;
  // What can be said once lists are copied.
  { inputs.CheckLists() } -> std::same_as<absl::Status>;
  { inputs.First() } -> std::same_as<const InputTensor&>;
  { inputs.options } -> std::convertible_to<const OptionInputs&>;
  // The etag of the named layer, or empty.
  { inputs.LayerEtag() } -> std::same_as<std::string_view>;
  // Which of the fast kernels compute the problem.
  { M::UsedKernels(problem, FastKernels::kNone) } -> std::same_as<FastKernels>;
  // The same before GatherTensors and after, but for addresses.
  { inputs.Spec() } -> std::same_as<typename M::Problem::Spec>;
  { problem.Rebind(inputs.Spec()) } -> std::same_as<void>;
  // What cannot be asked for together.
  { inputs.CheckWith(outputs) } -> std::same_as<absl::Status>;
  { M::MakeExtras(inputs) } -> std::same_as<typename M::Extras>;
  // Memory beyond inputs, outputs and the core's.
  { M::ExtraBytes(problem, inputs) } -> std::same_as<double>;
  { M::AddTensors(problem, inputs, outputs, response) } -> std::same_as<void>;
  { M::Compute(problem, extras, response, context) } -> std::same_as<absl::Status>;
};

// Thread-compatible, as every Job.
template <AttentionMethod Method>
class AttentionJob final : public Job {
 public:
  static Decoder MakeDecoder(const Method& method) {
    return [method](const grpc::ByteBuffer& request, const DecodeContext& context) {
      return Decode(request, context, method);
    };
  }
  static Estimator MakeEstimator(const Method& method) {
    return [method](const grpc::ByteBuffer& request, const DecodeContext& context) -> absl::StatusOr<RequestCost> {
      const WireBytes bytes(request);
      typename Method::Raw raw;
      Inputs inputs;
      if (absl::Status s = Read(bytes, context, method, Contents::kMayLack, raw, inputs); !s.ok()) return s;
      const auto job = Plan(raw, inputs, context.limits.num_threads, method);
      if (!job.ok()) return job.status();
      return (*job)->cost_;
    };
  }

  // The order of the checks is that of decoders.h.
  static absl::StatusOr<std::unique_ptr<Job>> Decode(const grpc::ByteBuffer& request, const DecodeContext& context,
                                                     const Method& method) {
    const WireBytes bytes(request);
    typename Method::Raw raw;
    Inputs inputs;
    if (absl::Status s = Read(bytes, context, method, Contents::kNeeded, raw, inputs); !s.ok()) return s;
    absl::StatusOr<std::unique_ptr<AttentionJob>> job = Plan(raw, inputs, context.limits.num_threads, method);
    if (!job.ok()) return job.status();
    if (absl::Status s = CheckCost((*job)->cost_, context.limits); !s.ok()) return s;
    // Elements may take more bytes than they were sent in: `values` of FLOAT64 take twice as many.
    if (absl::Status s = context.take_memory((*job)->memory_bytes()); !s.ok()) return s;
    (*job)->Gather(bytes, inputs);
    return *std::move(job);
  }

  // As for calls: more than malloc keeps for the next request.
  static void* operator new(std::size_t size) { return AllocateAligned(size); }
  static void operator delete(void* memory, std::size_t size) { FreeAligned(memory, size); }

  double flops() const override { return cost_.flops; }
  double memory_bytes() const override { return cost_.memory_bytes; }
  double response_bytes() const override { return cost_.response_bytes; }

  absl::Status Compute(const ComputeContext& context) override {
    response_.Allocate();
    return Method::Compute(problem_, *extras_, response_, context);
  }

  grpc::ByteBuffer TakeResponse() override {
    // Sending takes its time, and the inputs have served.
    tensors_ = AlignedBuffer<std::byte>();
    extras_.reset();
    return response_.Take();
  }

 private:
  // As long as the passes over a weight take that is averaged or compared.
  static constexpr double kFlopsOfWeight = 32;

  using Inputs = typename Method::Inputs;
  using Problem = typename Method::Problem;

  // Only what is estimated may lack the elements of its tensors.
  enum class Contents : std::uint8_t { kNeeded, kMayLack };

  // All that comes before the rules of attention, which look at lists.
  static absl::Status Read(const WireBytes& bytes, const DecodeContext& context, const Method& method,
                           Contents contents, typename Method::Raw& raw, Inputs& inputs) {
    if (absl::Status s = Method::Read(bytes, raw); !s.ok()) return s;
    if (absl::Status s = method.Check(raw, bytes, context.tenant, inputs); !s.ok()) return s;
    if (contents == Contents::kNeeded) {
      // A shape without elements would let lists be of any length.
      if (absl::Status s = CheckHaveContents(inputs.Tensors()); !s.ok()) return s;
    }
    if (absl::Status s = CopyLists(bytes, context.take_memory, inputs.Lists()); !s.ok()) return s;
    return inputs.CheckLists();
  }

  // A job that knows its cost and lacks its tensors.
  static absl::StatusOr<std::unique_ptr<AttentionJob>> Plan(const typename Method::Raw& raw, Inputs& inputs,
                                                            int num_threads, const Method& method) {
    const absl::StatusOr<OutputSet> outputs = OutputSet::Check(raw.outputs, Method::kOutputs, inputs.options.weights);
    if (!outputs.ok()) return outputs.status();
    if (absl::Status status = inputs.CheckWith(*outputs); !status.ok()) return status;
    const absl::StatusOr<Problem> problem = Problem::Create(inputs.Spec());  // On placeholders, for the shapes.
    if (!problem.ok()) return problem.status();
    if (!IsTensorSize(
            {problem->batch(), problem->num_heads(), problem->query_length(), inputs.options.weights.top_k})) {
      return InvalidField("options.top_k",
                          "options.top_k and the queries describe more weights than any machine can "
                          "hold; ask for fewer");
    }
    std::unique_ptr<AttentionJob> job(new AttentionJob(
        *problem, inputs, *outputs,
        method.receipts.Of(inputs.LayerEtag(), Method::UsedKernels(*problem, method.receipts.fast_kernels()))));
    job->cost_ = job->Cost(inputs, *outputs, num_threads);
    return job;
  }

  AttentionJob(const Problem& problem, const Inputs& inputs, const OutputSet& outputs, SerializedField receipt)
      : problem_(problem),
        response_(inputs.First().from_values() ? TensorForm::kValues : TensorForm::kData, std::move(receipt)) {
    Method::AddTensors(problem, inputs, outputs, response_);
  }

  RequestCost Cost(Inputs& inputs, const OutputSet& outputs, int num_threads) const {
    const bool consumes_weights = outputs.Has(v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS) ||
                                  (outputs.Has(v1::OUTPUT_KIND_ATTENTION_WEIGHTS) && !inputs.options.weights.per_head);
    const auto lists = static_cast<double>(ListBytes(inputs.Lists()));
    const double gathered = GatheredBytes(inputs.Tensors()) + lists;
    return {.flops = problem_.Flops() + (consumes_weights ? kFlopsOfWeight * Weights() : 0),
            .memory_bytes = gathered + response_.MemoryBytes() + Method::ExtraBytes(problem_, inputs) +
                            ScratchBytes(problem_, num_threads, consumes_weights, inputs.options.weights.top_k),
            .list_bytes = lists,
            .response_bytes = response_.SerializedBytes()};
  }

  // Of all heads, with those of hidden keys, which averages and top weights go through as well.
  double Weights() const {
    const AttentionShape shape{problem_.batch(), problem_.num_heads(), problem_.query_length(), problem_.key_length()};
    return static_cast<double>(shape.heads) * AllPairs(problem_.options(), shape);
  }

  // Copies the tensors and lets the problem view the copies.
  void Gather(const WireBytes& bytes, Inputs& inputs) {
    tensors_ = GatherTensors(bytes, inputs.Tensors());
    problem_.Rebind(inputs.Spec());
    extras_.emplace(Method::MakeExtras(inputs));
    lengths_ = std::move(inputs.options.lengths);
  }

  Problem problem_;  // Views the three members below.
  std::optional<typename Method::Extras> extras_;
  AlignedBuffer<std::byte> tensors_;
  Lengths lengths_;
  ResponseBuffer response_;
  RequestCost cost_;
};

// Where the tensors with a row for each query go, for both kinds of response: views of the memory that is sent, absent
// for tensors that were not added. `Response` is the message, which knows the field numbers; `Problem` the core's.
// Thread-compatible.
template <typename Response>
class RowOutputs {
 public:
  template <typename Problem>
  RowOutputs(const Problem& problem, const WeightsForm& form, const ResponseBuffer& response)
      : response_(response),
        form_(form),
        type_(problem.is_double() ? DataType::kFloat64 : DataType::kFloat32),
        batch_(problem.batch()),
        heads_(problem.num_heads()),
        queries_(problem.query_length()),
        columns_(problem.score_columns()) {}

  MutableTypedHeadsView Scores() const { return View(Response::kScoresFieldNumber, heads_, columns_); }
  MutableTypedHeadsView PerHeadWeights() const {
    if (!form_.per_head) return {};
    return View(Response::kAttentionWeightsFieldNumber, heads_, columns_);
  }
  MutableTypedHeadsView AveragedWeights() const {
    if (form_.per_head) return {};
    return View(Response::kAttentionWeightsFieldNumber, 1, columns_);
  }
  TopWeights Top() const {
    const std::int64_t heads = form_.per_head ? heads_ : 1;
    auto* indices = static_cast<std::int32_t*>(response_.Elements(Response::kTopAttentionIndicesFieldNumber));
    return {View(Response::kTopAttentionWeightsFieldNumber, heads, form_.top_k),
            SplitHeads(indices, batch_, heads, queries_, form_.top_k)};
  }

 private:
  MutableTypedHeadsView View(int field_number, std::int64_t heads, std::int64_t columns) const {
    return SplitTypedHeads(response_.Elements(field_number), type_, batch_, heads, queries_, columns);
  }

  const ResponseBuffer& response_;
  const WeightsForm form_;
  const DataType type_;
  const std::int64_t batch_, heads_, queries_, columns_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_REQUESTS_ATTENTION_JOB_H_
