#include "core/layer/attend_problem.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "core/base/limits.h"
#include "core/problem/key_visibility.h"
#include "core/problem/options.h"
#include "core/problem/sequences.h"

namespace attend {
namespace {

// Of one element of a norm, and of one sine with its cosine.
constexpr double kNormFlops = 8;
constexpr double kAngleFlops = 50;

// `name` is `embeddings` or `context`.
absl::Status ValidateEmbeddings(const EmbeddingsView& view, const char* name) {
  const bool is_empty = view.batch < 1 || view.length < 1 || view.dim < 1;
  if (!is_empty && IsTensorSize({view.batch, view.length, view.dim})) return absl::OkStatus();
  const std::string shape = absl::StrCat(name, ".shape");
  if (is_empty) {
    return InvalidField(shape, absl::StrCat(shape, " has ", view.batch, " batch entries, ", view.length,
                                            " tokens and embedding size ", view.dim, "; each must be at least 1"));
  }
  return InvalidField(shape, absl::StrCat(shape, " describes more elements than any machine can hold; send less"));
}

// The embeddings and the context, each by itself and beside each other.
absl::Status ValidateTokens(const AttendProblem::Spec& spec) {
  const EmbeddingsView &embeddings = spec.embeddings, &context = spec.context;
  if (embeddings.data == nullptr) {
    return InvalidField("embeddings", "embeddings is missing; send the tokens that attend");
  }
  for (absl::Status status : {ValidateEmbeddings(embeddings, "embeddings"), ValidateEmbeddings(context, "context"),
                              ValidateTensorType("embeddings", embeddings.type, embeddings.type),
                              ValidateTensorType("context", context.type, embeddings.type)}) {
    if (!status.ok()) return status;
  }
  if (context.batch != embeddings.batch) {
    return InvalidField("context.shape",
                        absl::StrCat("context.shape has batch size ", context.batch, ", but embeddings.shape has ",
                                     embeddings.batch, "; they must be equal"));
  }
  if (!spec.layer && context.dim != embeddings.dim) {
    return InvalidField("context.shape",
                        absl::StrCat("context.shape has embedding size ", context.dim, ", but embeddings.shape has ",
                                     embeddings.dim, "; without a layer they must be equal"));
  }
  return absl::OkStatus();
}

absl::Status ValidatePositionOffset(const std::string& field, std::int64_t offset) {
  if (offset >= 0 && offset <= kMaxPositionOffset) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(field, " is ", offset, "; it must be between 0 and ", kMaxPositionOffset));
}

// REQUIRES: options that were accepted.
absl::Status ValidatePositionOffsets(const AttendProblem::Spec& spec) {
  if (absl::Status s = ValidatePositionOffset("position_offset", spec.position_offset); !s.ok()) return s;
  const auto count = static_cast<std::int64_t>(spec.position_offsets.size());
  if (count == 0) return absl::OkStatus();
  constexpr char kField[] = "position_offsets";
  if (spec.position_offset != 0) {
    return InvalidField(kField, "position_offsets and position_offset are both given; send one of them");
  }
  const bool is_ragged = IsRagged(spec.options);
  const std::int64_t expected = is_ragged ? NumSequences(spec.options) : spec.embeddings.batch;
  if (count != expected) {
    return InvalidField(kField, absl::StrCat(kField, " has ", count, " entries; it must have one for each of the ",
                                             expected, is_ragged ? " sequences" : " batch entries"));
  }
  for (std::int64_t n = 0; n < count; ++n) {
    const std::int64_t offset = spec.position_offsets[static_cast<std::size_t>(n)];
    if (absl::Status s = ValidatePositionOffset(absl::StrCat(kField, "[", n, "]"), offset); !s.ok()) return s;
  }
  return absl::OkStatus();
}

// Every tensor that computing the problem may hold stays addressable.
absl::Status ValidateResultSizes(const AttendProblem& problem) {
  const std::int64_t batch = problem.batch(), queries = problem.query_length(), keys = problem.key_length();
  const std::int64_t heads = problem.num_heads();
  if (IsTensorSize({batch, heads, queries, keys}) && IsTensorSize({batch, heads, queries, problem.head_dim()}) &&
      IsTensorSize({batch, heads, queries, problem.value_dim()}) &&
      IsTensorSize({batch, heads, keys, problem.head_dim()}) &&
      IsTensorSize({batch, heads, keys, problem.value_dim()}) && IsTensorSize({batch, queries, problem.output_dim()})) {
    return absl::OkStatus();
  }
  return InvalidField("embeddings.shape",
                      "embeddings.shape, context.shape and the layer together describe larger "
                      "results than any machine can hold; send fewer tokens");
}

double Product(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d = 1) {
  return static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c) * static_cast<double>(d);
}

}  // namespace

absl::StatusOr<AttendProblem> AttendProblem::Create(const Spec& spec) {
  AttendProblem problem(spec);
  Spec& s = problem.spec_;
  problem.has_context_ = s.context.data != nullptr;
  if (!problem.has_context_) {
    s.context = s.embeddings;
    s.options.query_lengths = s.options.valid_lengths;
    if (s.options.cumulative_key_lengths.empty()) {
      s.options.cumulative_key_lengths = s.options.cumulative_query_lengths;
    }
  }
  if (absl::Status status = ValidateTokens(s); !status.ok()) return status;
  if (s.layer) {
    const LayerTokens tokens{s.embeddings.type, s.embeddings.dim, s.context.dim, problem.has_context_};
    if (absl::Status status = ValidateLayer(*s.layer, tokens); !status.ok()) return status;
    problem.head_dim_ = s.layer->query.out_features / s.layer->num_heads;
    problem.value_dim_ = s.layer->value.out_features / s.layer->num_kv_heads;
    problem.output_dim_ =
        s.layer->output.present() ? s.layer->output.out_features : s.layer->num_heads * problem.value_dim_;
  } else {
    problem.head_dim_ = problem.value_dim_ = problem.output_dim_ = s.embeddings.dim;
  }
  if (absl::Status status = ValidateResultSizes(problem); !status.ok()) return status;
  if (absl::Status status = ValidateOptions(problem.shape(), s.embeddings.type, s.options); !status.ok()) return status;
  if (absl::Status status = ValidatePositionOffsets(s); !status.ok()) return status;
  problem.score_columns_ = ScoreColumns(s.options, problem.key_length());
  return problem;
}

void AttendProblem::Rebind(const Spec& spec) {
  spec_.embeddings.data = spec.embeddings.data;
  spec_.context.data = has_context_ ? spec.context.data : spec.embeddings.data;
  spec_.layer = spec.layer;
  spec_.position_offsets = spec.position_offsets;
  RebindOptions(spec.options, spec_.options);
}

double AttendProblem::Flops() const {
  const double per_pair = 2 * (static_cast<double>(head_dim_) + static_cast<double>(value_dim_));
  double flops = per_pair * static_cast<double>(num_heads()) * VisiblePairs(spec_.options, shape());
  if (!spec_.layer) return flops;
  const LayerView& layer = *spec_.layer;
  flops += 2 * Product(batch(), query_length(), layer.query.in_features, layer.query.out_features);
  flops += 2 * Product(batch(), key_length(), layer.key.in_features, layer.key.out_features);
  flops += 2 * Product(batch(), key_length(), layer.value.in_features, layer.value.out_features);
  const double tokens = Product(batch(), query_length(), 1) + Product(batch(), key_length(), 1);
  const double heads = Product(batch(), query_length(), layer.query.out_features) +
                       Product(batch(), key_length(), layer.key.out_features);
  if (layer.query_norm.weight || layer.key_norm.weight) flops += kNormFlops * heads;
  if (!layer.rotary.frequencies.empty()) {
    flops += 3 * heads + kAngleFlops * tokens * static_cast<double>(layer.rotary.frequencies.size());
  }
  if (layer.output.present()) flops += 2 * Product(batch(), query_length(), layer.output.in_features, output_dim_);
  return flops;
}

}  // namespace attend
