#include "client/cli/verify.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "core/attention/attend_problem.h"
#include "core/attention/reference.h"
#include "core/attention/sdpa_problem.h"

namespace attend::client {
namespace {

constexpr char kAgainst[] = "the float64 reference";
constexpr double kMaxReferenceBytes = 4.0 * 1024 * 1024 * 1024;

const float* Floats(const v1::Tensor& tensor) { return reinterpret_cast<const float*>(tensor.data().data()); }

// The lengths of the last four axes, with 1 for those that are missing in front.
struct Axes {
  std::int64_t batch = 1;
  std::int64_t heads = 1;
  std::int64_t length = 1;
  std::int64_t dim = 1;
};

Axes AxesOf(const v1::Tensor& tensor) {
  Axes axes;
  std::int64_t* const last_first[] = {&axes.dim, &axes.length, &axes.heads, &axes.batch};
  for (int i = 0; i < tensor.shape_size() && i < 4; ++i) *last_first[i] = tensor.shape(tensor.shape_size() - 1 - i);
  return axes;
}

HeadsView DenseView(const v1::Tensor& tensor) {
  const Axes axes = AxesOf(tensor);
  return SplitHeads(Floats(tensor), axes.batch, axes.heads, axes.length, axes.dim);
}

// A view of `axes` in which each axis of `given` that is 1 is repeated.
template <typename T>
BasicHeadsView<T> Broadcast(T* data, const Axes& given, const Axes& axes) {
  BasicHeadsView<T> view = SplitHeads(data, given.batch, given.heads, given.length, given.dim);
  view.batch_stride = given.batch == 1 ? 0 : view.batch_stride;
  view.head_stride = given.heads == 1 ? 0 : view.head_stride;
  view.row_stride = given.length == 1 ? 0 : view.row_stride;
  view.dim_stride = given.dim == 1 ? 0 : 1;
  view.batch = axes.batch;
  view.heads = axes.heads;
  view.length = axes.length;
  view.dim = axes.dim;
  return view;
}

CausalMode ToCore(v1::CausalMode mode) {
  switch (mode) {
    case v1::CAUSAL_MODE_BOTTOM_RIGHT: return CausalMode::kBottomRight;
    case v1::CAUSAL_MODE_TOP_LEFT: return CausalMode::kTopLeft;
    default: return CausalMode::kNone;
  }
}

absl::Span<const float> FloatSpan(const v1::Tensor& tensor) {
  return {Floats(tensor), tensor.data().size() / sizeof(float)};
}

// `scores` are the axes [B, H, T, S].
AttentionOptions ToCore(const v1::AttentionOptions& proto, const Axes& scores) {
  AttentionOptions options;
  if (proto.has_scale()) options.scale = proto.scale();
  if (proto.has_softcap()) options.softcap = proto.softcap();
  if (proto.has_sliding_window_left()) options.sliding_window_left = proto.sliding_window_left();
  if (proto.has_sliding_window_right()) options.sliding_window_right = proto.sliding_window_right();
  options.causal = ToCore(proto.causal());
  options.key_lengths = absl::MakeConstSpan(proto.valid_lengths().data(), proto.valid_lengths_size());
  options.alibi_slopes = FloatSpan(proto.alibi_slopes());
  options.sinks = FloatSpan(proto.sinks());
  if (proto.has_bias()) options.bias = Broadcast(Floats(proto.bias()), AxesOf(proto.bias()), scores);
  if (proto.has_mask()) {
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(proto.mask().data().data());
    options.mask = Broadcast(bytes, AxesOf(proto.mask()), scores);
  }
  return options;
}

LinearView ToCore(const v1::Linear& linear) {
  const Axes axes = AxesOf(linear.weight());
  return {Floats(linear.weight()), linear.has_bias() ? Floats(linear.bias()) : nullptr, axes.length, axes.dim};
}

LayerView ToCore(const v1::AttentionLayer& proto) {
  LayerView layer{ToCore(proto.query_projection()), ToCore(proto.key_projection()), ToCore(proto.value_projection())};
  if (proto.has_output_projection()) layer.output = ToCore(proto.output_projection());
  layer.num_heads = proto.num_heads() == 0 ? 1 : proto.num_heads();
  layer.num_kv_heads = proto.num_kv_heads() == 0 ? layer.num_heads : proto.num_kv_heads();
  return layer;
}

EmbeddingsView Embeddings(const v1::Tensor& tensor) {
  const Axes axes = AxesOf(tensor);
  return {Floats(tensor), axes.heads, axes.length, axes.dim};
}

absl::Status CheckMemory(const Axes& scores) {
  const double bytes = 2.0 * sizeof(double) * static_cast<double>(scores.batch) * static_cast<double>(scores.heads) *
                       static_cast<double>(scores.length) * static_cast<double>(scores.dim);
  if (bytes <= kMaxReferenceBytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("--verify stores all scores in float64, here ", bytes / (1 << 30), " GiB; at most 4 are allowed"));
}

absl::StatusOr<ReferenceResult> Reference(const v1::ScaledDotProductAttentionRequest& request) {
  const Axes query = AxesOf(request.query());
  const Axes scores{query.batch, query.heads, query.length, AxesOf(request.key()).length};
  if (absl::Status status = CheckMemory(scores); !status.ok()) return status;
  const absl::StatusOr<SdpaProblem> problem =
      SdpaProblem::Create({DenseView(request.query()), DenseView(request.key()), DenseView(request.value()),
                           ToCore(request.options(), scores)});
  if (!problem.ok()) return problem.status();
  return ReferenceSdpa(*problem);
}

absl::StatusOr<ReferenceResult> Reference(const v1::AttendRequest& request) {
  AttendProblem::Spec spec;
  spec.embeddings = Embeddings(request.embeddings());
  if (request.has_context()) spec.context = Embeddings(request.context());
  if (request.has_layer()) spec.layer = ToCore(request.layer());
  const Axes scores{spec.embeddings.batch, spec.layer ? spec.layer->num_heads : 1, spec.embeddings.length,
                    request.has_context() ? spec.context.length : spec.embeddings.length};
  if (absl::Status status = CheckMemory(scores); !status.ok()) return status;
  spec.options = ToCore(request.options(), scores);
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
  std::vector<Comparison> comparisons;
  for (const auto& [name, tensor] : outcome.tensors) {
    const std::vector<double>* const values = Values(*reference, name, per_head);
    if (values == nullptr || static_cast<std::int64_t>(values->size()) != tensor.num_elements()) {
      return absl::InvalidArgumentError(absl::StrCat("the reference has no ", name, " of ", tensor.Describe()));
    }
    comparisons.push_back(Compare(name, kAgainst, tensor, *values, ErrorBound(name, scale)));
  }
  return comparisons;
}

}  // namespace attend::client
