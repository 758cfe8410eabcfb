// What the methods that compute have in common: the order in which a request is checked, and the job it becomes.
//
// A `Method` says what differs:
//
//   struct Method {
//     using Raw, Problem;             // The request as read; the core's problem.
//     using Context;                  // What a request refers to besides its own bytes; copied.
//     struct Inputs {                 // The request with its tensors checked.
//       OptionInputs options;
//       const InputTensor& First() const;         // Decides the form of the response.
//       InputTensors Tensors();                   // All, also absent ones.
//       Problem::Spec Spec() const;
//       absl::Status CheckWith(const OutputSet& outputs) const;  // What cannot be asked for together.
//     };
//     struct Extras;                  // What of the inputs Compute needs besides the problem, and what keeps the
//                                     // problem's views alive; may view tensors.
//     static constexpr v1::OutputKind kOutputs[];  // What the response can hold.
//     static absl::Status Read(const WireBytes& bytes, Raw& raw);
//     static absl::StatusOr<Inputs> Check(const Raw& raw, const WireBytes& bytes, const Context& context);
//     static Extras MakeExtras(const Inputs&);
//     static double ExtraBytes(const Problem&, const Inputs&);  // Memory beyond inputs, outputs and the core's.
//     static void AddTensors(const Problem&, const Inputs&, const OutputSet&, ResponseBuffer& response);
//     static absl::Status Compute(const Problem&, const Extras&, const ResponseBuffer&, const ComputeContext&);
//   };
#ifndef ATTEND_SERVER_REQUESTS_ATTENTION_JOB_H_
#define ATTEND_SERVER_REQUESTS_ATTENTION_JOB_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/tensor/aligned_buffer.h"
#include "server/requests/request_options.h"
#include "server/requests/tensor_codec.h"
#include "server/rpc/job.h"
#include "server/wire/request_reader.h"
#include "server/wire/response_buffer.h"
#include "server/wire/wire_reader.h"

namespace attend::server {

// Thread-compatible, as every Job.
template <typename Method>
class AttentionJob final : public Job {
 public:
  static Decoder MakeDecoder(typename Method::Context context) {
    return
        [context](const grpc::ByteBuffer& request, const Limits& limits) { return Decode(request, limits, context); };
  }

  // The order of the checks is that of decoders.h.
  static absl::StatusOr<std::unique_ptr<Job>> Decode(const grpc::ByteBuffer& request, const Limits& limits,
                                                     const typename Method::Context& context) {
    const WireBytes bytes(request);
    if (absl::Status status = CheckRequestSize(bytes.size(), limits); !status.ok()) return status;
    typename Method::Raw raw;
    if (absl::Status status = Method::Read(bytes, raw); !status.ok()) return status;
    absl::StatusOr<Inputs> inputs = Method::Check(raw, bytes, context);
    if (!inputs.ok()) return inputs.status();
    const absl::StatusOr<OutputSet> outputs = CheckOutputs(raw.outputs, Method::kOutputs, inputs->options.weights);
    if (!outputs.ok()) return outputs.status();
    if (absl::Status status = inputs->CheckWith(*outputs); !status.ok()) return status;
    const absl::StatusOr<Problem> claim = Problem::Create(inputs->Spec());  // On placeholders, for the shapes.
    if (!claim.ok()) return claim.status();

    std::unique_ptr<AttentionJob> job(new AttentionJob(*claim, *inputs, *outputs));
    const RequestCost cost = job->Cost(*inputs, *outputs, limits.num_threads);
    if (absl::Status status = CheckCost(cost, limits); !status.ok()) return status;
    job->memory_bytes_ = cost.memory_bytes;
    if (absl::Status status = job->Gather(bytes, *inputs); !status.ok()) return status;
    return job;
  }

  // As for calls: more than malloc keeps for the next request.
  static void* operator new(std::size_t size) { return AllocateAligned(size); }
  static void operator delete(void* memory, std::size_t size) { FreeAligned(memory, size); }

  double flops() const override { return flops_; }
  double memory_bytes() const override { return memory_bytes_; }

  absl::Status Compute(const ComputeContext& context) override {
    response_.Allocate();
    return Method::Compute(problem_, extras_, response_, context);
  }

  grpc::ByteBuffer TakeResponse() override {
    // Sending takes its time, and the inputs have served.
    tensors_ = AlignedBuffer<std::byte>();
    extras_ = {};
    return response_.Take();
  }

 private:
  using Inputs = typename Method::Inputs;
  using Problem = typename Method::Problem;

  AttentionJob(const Problem& claim, const Inputs& inputs, const OutputSet& outputs)
      : problem_(claim),
        extras_(Method::MakeExtras(inputs)),
        response_(inputs.First().from_values() ? TensorForm::kValues : TensorForm::kData),
        flops_(claim.Flops()) {
    Method::AddTensors(claim, inputs, outputs, response_);
  }

  RequestCost Cost(Inputs& inputs, const OutputSet& outputs, int num_threads) const {
    const bool consumes_weights = outputs.Has(v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS) ||
                                  (outputs.Has(v1::OUTPUT_KIND_ATTENTION_WEIGHTS) && !inputs.options.weights.per_head);
    const auto gathered = static_cast<double>(GatheredBytes(inputs.Tensors()) + inputs.options.lengths.NumBytes());
    return {.flops = flops_,
            .memory_bytes = gathered + response_.MemoryBytes() + Method::ExtraBytes(problem_, inputs) +
                            ScratchBytes(problem_, num_threads, consumes_weights),
            .response_bytes = response_.SerializedBytes()};
  }

  // Copies the tensors and builds the same problem on them.
  absl::Status Gather(const WireBytes& bytes, Inputs& inputs) {
    tensors_ = GatherTensors(bytes, inputs.Tensors());
    const absl::StatusOr<Problem> problem = Problem::Create(inputs.Spec());
    if (!problem.ok()) return problem.status();
    problem_ = *problem;
    extras_ = Method::MakeExtras(inputs);
    lengths_ = std::move(inputs.options.lengths);
    return absl::OkStatus();
  }

  Problem problem_;  // Both view the two members below.
  typename Method::Extras extras_;
  AlignedBuffer<std::byte> tensors_;
  Lengths lengths_;
  ResponseBuffer response_;
  double flops_;
  double memory_bytes_ = 0;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_REQUESTS_ATTENTION_JOB_H_
