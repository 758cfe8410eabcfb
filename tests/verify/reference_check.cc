#include "tests/verify/reference_check.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/layer/attend_problem.h"
#include "core/problem/sdpa_problem.h"
#include "core/reference/reference.h"
#include "tests/verify/core_views.h"
#include "tests/verify/error_scale.h"
#include "tests/verify/merge_reference.h"
#include "tests/verify/top_weights_check.h"

namespace attend::client {
namespace {

constexpr char kAgainst[] = "the float64 reference";
constexpr double kMaxReferenceBytes = 4.0 * 1024 * 1024 * 1024;

absl::Status CheckMemory(const Axes& scores) {
  const double bytes = 2.0 * sizeof(double) * static_cast<double>(scores.batch) * static_cast<double>(scores.heads) *
                       static_cast<double>(scores.length) * static_cast<double>(scores.dim);
  if (bytes <= kMaxReferenceBytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("the reference stores all scores in float64, here ",
                                                   bytes / (1 << 30), " GiB; at most 4 are allowed"));
}

// Options whose bias has a type that the core takes: one of 16 bits is widened.
v1::AttentionOptions WithWideBias(const v1::AttentionOptions& options) {
  v1::AttentionOptions wide = options;
  const v1::DataType type = options.bias().data_type();
  if (type != v1::DATA_TYPE_FLOAT16 && type != v1::DATA_TYPE_BFLOAT16) return wide;
  absl::StatusOr<Tensor> bias = Tensor::FromProto(std::move(*wide.mutable_bias()));
  if (bias.ok()) (*std::move(bias)).ToFloat32().MoveTo(wide.mutable_bias()).IgnoreError();
  return wide;
}

// [B, H, T, V] as [B, T, H, V].
std::vector<double> TokensFirst(const std::vector<double>& output, const SdpaProblem& problem) {
  const std::int64_t heads = problem.num_heads(), tokens = problem.query_length(), dim = problem.value_dim();
  std::vector<double> swapped(output.size());
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(output.size()); ++i) {
    const std::int64_t t = i / dim % tokens, h = i / (dim * tokens) % heads, b = i / (dim * tokens * heads);
    swapped[static_cast<std::size_t>(((b * tokens + t) * heads + h) * dim + i % dim)] =
        output[static_cast<std::size_t>(i)];
  }
  return swapped;
}

absl::StatusOr<ReferenceResult> Reference(const v1::ScaledDotProductAttentionRequest& request) {
  const TypedHeadsView query = DenseView(request.query(), request.layout());
  const TypedHeadsView key = DenseView(request.key(), request.layout());
  const Axes scores{query.batch, query.heads, query.length, key.length};
  if (absl::Status status = CheckMemory(scores); !status.ok()) return status;
  const v1::AttentionOptions options = WithWideBias(request.options());
  const absl::StatusOr<SdpaProblem> problem =
      SdpaProblem::Create({query, key, DenseView(request.value(), request.layout()), ToCore(options, scores)});
  if (!problem.ok()) return problem.status();
  ReferenceResult result = ReferenceSdpa(*problem);
  if (request.has_partials()) MergeReference(request.partials(), &result);
  if (IsTokensFirst(request.query(), request.layout())) result.output = TokensFirst(result.output, *problem);
  return result;
}

absl::StatusOr<ReferenceResult> Reference(const v1::AttendRequest& request) {
  AttendProblem::Spec spec;
  spec.embeddings = EmbeddingsOf(request.embeddings());
  if (request.has_context()) spec.context = EmbeddingsOf(request.context());
  if (request.has_layer()) spec.layer = ToCore(request.layer());
  const Axes scores{spec.embeddings.batch, spec.layer ? spec.layer->num_heads : 1, spec.embeddings.length,
                    request.has_context() ? spec.context.length : spec.embeddings.length};
  if (absl::Status status = CheckMemory(scores); !status.ok()) return status;
  const v1::AttentionOptions options = WithWideBias(request.options());
  spec.options = ToCore(options, scores);
  const absl::StatusOr<AttendProblem> problem = AttendProblem::Create(spec);
  if (!problem.ok()) return problem.status();
  return ReferenceAttend(*problem);
}

// The reference's values of a returned tensor; null for a name it does not know.
const std::vector<double>* Values(const ReferenceResult& reference, const std::string& name, bool per_head) {
  if (name == "output") return &reference.output;
  if (name == "attention_weights") return per_head ? &reference.attention_weights : &reference.averaged_weights;
  if (name == "log_sum_exp") return &reference.log_sum_exp;
  if (name == "query") return &reference.query;
  if (name == "key") return &reference.key;
  if (name == "value") return &reference.value;
  return name == "scores" ? &reference.scores : nullptr;
}

}  // namespace

absl::StatusOr<std::vector<Comparison>> VerifyAgainstReference(const ComputationRequest& request,
                                                               const Outcome& outcome) {
  const absl::StatusOr<ReferenceResult> reference =
      std::visit([](const auto& message) { return Reference(message); }, request);
  if (!reference.ok()) return reference.status();
  const bool per_head = std::visit(
      [](const auto& message) {
        return message.options().attention_weights_form() == v1::ATTENTION_WEIGHTS_FORM_PER_HEAD;
      },
      request);
  const ErrorScale scale = ComputeErrorScale(request);
  const std::vector<double>& weights = *Values(*reference, "attention_weights", per_head);
  std::vector<Comparison> comparisons;
  for (const auto& [name, tensor] : outcome.tensors) {
    if (name == "top_attention_weights" || name == "top_attention_indices") {
      const double bound = ErrorBound("top_attention_weights", scale);
      comparisons.push_back(name == "top_attention_weights" ? CompareTopWeights(kAgainst, tensor, weights, bound)
                                                            : CompareTopIndices(kAgainst, tensor, weights, bound));
      continue;
    }
    const std::vector<double>* const values = Values(*reference, name, per_head);
    if (values == nullptr || static_cast<std::int64_t>(values->size()) != tensor.num_elements()) {
      return absl::InvalidArgumentError(absl::StrCat("the reference has no ", name, " of ", tensor.Describe()));
    }
    comparisons.push_back(Compare(name, kAgainst, tensor, *values, ErrorBound(name, scale)));
  }
  return comparisons;
}

}  // namespace attend::client
