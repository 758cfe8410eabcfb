#include "core/layer/compute_attend.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "core/base/round.h"
#include "core/compute/compute_sdpa.h"
#include "core/layer/norm_and_rotary.h"
#include "core/layer/projection.h"
#include "core/problem/sequences.h"
#include "core/tensor/aligned_buffer.h"

namespace attend {
namespace {

// Query, key and value of all heads: projected, normalised and rotated, or the embeddings as they are.
template <typename T>
struct Heads {
  TypedHeadsView query;
  TypedHeadsView key;
  TypedHeadsView value;
  AlignedBuffer<T> memory;
};

std::int64_t Rows(const EmbeddingsView& tokens) { return tokens.batch * tokens.length; }

TypedHeadsView OneHead(const EmbeddingsView& tokens) {
  return SplitTypedHeads(tokens.data, tokens.type, tokens.batch, 1, tokens.length, tokens.dim);
}

// Tokens in the type of the arithmetic: where they are, or widened to memory of their own.
template <typename T>
class WidenedTokens {
 public:
  WidenedTokens(const EmbeddingsView& tokens, const ConvertKernels& convert)
      : data_(static_cast<const T*>(tokens.data)) {
    if (tokens.type == kDataTypeOf<T>) return;
    if constexpr (std::is_same_v<T, float>) {
      memory_ = AlignedBuffer<float>(Rows(tokens) * tokens.dim);
      convert.widen(tokens.type, tokens.data, memory_.size(), memory_.data());
      data_ = memory_.data();
    }
  }
  const T* data() const { return data_; }

 private:
  AlignedBuffer<T> memory_;
  const T* data_;
};

// Numbers that a thread rounds at a time.
constexpr std::int64_t kRoundedPerTile = 1 << 15;

void Narrow(const ComputeContext& context, const float* from, std::int64_t size, DataType type, void* to) {
  const ConvertKernels& convert = KernelsFor(context.instruction_set).convert;
  ForEach(context, CeilDiv(size, kRoundedPerTile), [&](std::int64_t i) {
    const std::int64_t first = i * kRoundedPerTile;
    convert.narrow(type, from + first, std::min(kRoundedPerTile, size - first),
                   static_cast<std::byte*>(to) + first * ElementSize(type));
  });
}

// T is the type of heads.
template <typename T>
Heads<T> ProjectHeads(const AttendProblem& problem, const ComputeContext& context, WorkspacePool& pool) {
  const LayerView& layer = *problem.layer();
  const ConvertKernels& convert = KernelsFor(context.instruction_set).convert;
  const std::int64_t rows = Rows(problem.embeddings()), context_rows = Rows(problem.context());
  const std::int64_t query_size = rows * layer.query.out_features;
  const std::int64_t key_size = context_rows * layer.key.out_features;
  const DataType type = kDataTypeOf<T>;
  Heads<T> heads;
  heads.memory = AlignedBuffer<T>(query_size + key_size + context_rows * layer.value.out_features);
  T* query = heads.memory.data();
  T* key = query + query_size;
  T* value = key + key_size;
  const WidenedTokens<T> tokens(problem.embeddings(), convert);
  const WidenedTokens<T> context_tokens(problem.self_attention() ? EmbeddingsView() : problem.context(), convert);
  const T* keys_from = problem.self_attention() ? tokens.data() : context_tokens.data();
  // Where norms and rotary embedding find queries and keys.
  using Wide = std::conditional_t<std::is_same_v<T, BFloat16>, float, T>;
  const bool widens = !std::is_same_v<T, Wide> && HasNormOrRotary(layer);
  const AlignedBuffer<Wide> wide(widens ? query_size + key_size : 0);
  const DataType wide_type = widens ? kDataTypeOf<Wide> : type;
  auto* wide_query = widens ? wide.data() : reinterpret_cast<Wide*>(query);
  auto* wide_key = widens ? wide.data() + query_size : reinterpret_cast<Wide*>(key);
  const Projection<T> projections[] = {
      {tokens.data(), rows, layer.query, wide_query, wide_type},
      {keys_from, context_rows, layer.key, wide_key, wide_type},
      {keys_from, context_rows, layer.value, value, type},
  };
  Project(context, projections, 3, pool);
  ApplyNormAndRotary(problem, context, wide_query, wide_key);
  if constexpr (!std::is_same_v<T, Wide>) {
    if (widens) Narrow(context, wide.data(), wide.size(), type, query);
  }
  const std::int64_t batch = problem.batch();
  heads.query = MergedHeads<const T>(query, batch, layer.num_heads, problem.query_length(), problem.head_dim());
  heads.key = MergedHeads<const T>(key, batch, layer.num_kv_heads, problem.key_length(), problem.head_dim());
  heads.value = MergedHeads<const T>(value, batch, layer.num_kv_heads, problem.key_length(), problem.value_dim());
  return heads;
}

// Copies a row of another type, a piece at a time by way of float32.
void ConvertRow(DataType from, const std::byte* row, std::int64_t dim, DataType type, std::byte* to,
                const ConvertKernels& convert) {
  constexpr std::int64_t kPiece = 256;
  float wide[kPiece];
  for (std::int64_t i = 0; i < dim; i += kPiece) {
    const std::int64_t count = std::min(kPiece, dim - i);
    const std::byte* const piece = row + i * ElementSize(from);
    if (from != DataType::kFloat32) convert.widen(from, piece, count, wide);
    const float* const numbers = from == DataType::kFloat32 ? reinterpret_cast<const float*>(piece) : wide;
    convert.narrow(type, numbers, count, to + i * ElementSize(type));
  }
}

// Copies a view to dense [batch, heads, length, dim] of `type`; nothing if `to` is null.
void CopyHeads(const TypedHeadsView& from, DataType type, void* to, const ConvertKernels& convert) {
  if (to == nullptr) return;
  auto* next = static_cast<std::byte*>(to);
  for (std::int64_t b = 0; b < from.batch; ++b) {
    for (std::int64_t h = 0; h < from.heads; ++h) {
      for (std::int64_t t = 0; t < from.length; ++t, next += from.dim * ElementSize(type)) {
        if (from.type == type) {
          std::memcpy(next, from.Row(b, h, t), static_cast<std::size_t>(from.dim * ElementSize(type)));
        } else {
          ConvertRow(from.type, from.Row(b, h, t), from.dim, type, next, convert);
        }
      }
    }
  }
}

bool ProjectsOutput(const AttendProblem& problem) {
  return problem.layer().has_value() && problem.layer()->output.present();
}

// `output` is [B, T, H * V] of `output_type`, or null.
template <typename T>
absl::Status Attend(const AttendProblem& problem, const Heads<T>& heads, const AttendOutputs& outputs, void* output,
                    DataType output_type, const ComputeContext& context) {
  const absl::StatusOr<SdpaProblem> sdpa =
      SdpaProblem::Create({heads.query, heads.key, heads.value, problem.options()});
  if (!sdpa.ok()) return sdpa.status();  // Never: what was checked for embeddings holds for their heads.
  SdpaOutputs results;
  results.output = MergedTypedHeads(output, output_type, problem.batch(), problem.num_heads(), problem.query_length(),
                                    problem.value_dim());
  results.attention_weights = outputs.attention_weights;
  results.averaged_weights = outputs.averaged_weights;
  results.scores = outputs.scores;
  results.top_weights = outputs.top_weights;
  results.log_sum_exp = outputs.log_sum_exp;
  return ComputeSdpa(*sdpa, results, context);
}

// The output projection of `merged` [B * T, H * V] to `output` of the embeddings' type.
template <typename T>
void ProjectOutput(const AttendProblem& problem, const T* merged, void* output, const ComputeContext& context,
                   WorkspacePool& pool) {
  const Projection<T> projection{merged, Rows(problem.embeddings()), problem.layer()->output, output,
                                 problem.embeddings().type};
  Project(context, &projection, 1, pool);
}

// T is the type of what lies between the steps: that of the arithmetic, or BFLOAT16 between those of fast kernels.
template <typename T>
absl::Status Compute(const AttendProblem& problem, const AttendOutputs& outputs, const ComputeContext& context) {
  const ConvertKernels& convert = KernelsFor(context.instruction_set).convert;
  const DataType type = problem.embeddings().type;
  WorkspacePool pool;
  const Heads<T> heads =
      problem.layer()
          ? ProjectHeads<T>(problem, context, pool)
          : Heads<T>{OneHead(problem.embeddings()), OneHead(problem.context()), OneHead(problem.context()), {}};
  if (IsCancelled(context)) return CancelledStatus();
  CopyHeads(heads.query, type, outputs.query, convert);
  CopyHeads(heads.key, type, outputs.key, convert);
  CopyHeads(heads.value, type, outputs.value, convert);
  if (!ProjectsOutput(problem) || outputs.output == nullptr) {
    return Attend(problem, heads, outputs, outputs.output, type, context);
  }
  const AlignedBuffer<T> merged(Rows(problem.embeddings()) * problem.num_heads() * problem.value_dim());
  if (absl::Status s = Attend(problem, heads, outputs, merged.data(), kDataTypeOf<T>, context); !s.ok()) return s;
  ProjectOutput(problem, merged.data(), outputs.output, context, pool);
  return WasCancelled(context) ? CancelledStatus() : absl::OkStatus();
}

double Product(std::int64_t a, std::int64_t b, std::int64_t c = 1) {
  return static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c);
}

// Positions of all tokens, angles, and each thread's sines and cosines.
double RotaryScratchBytes(const AttendProblem& problem, int num_threads) {
  const auto pairs = static_cast<double>(problem.layer()->rotary.frequencies.size());
  if (pairs == 0) return 0;
  const double tokens =
      Product(problem.batch(), problem.query_length(), 1) + Product(problem.batch(), problem.key_length(), 1);
  return 8 * tokens + 16 * pairs * (1 + num_threads);
}

}  // namespace

FastKernels FastKernelsOf(const AttendProblem& problem, FastKernels available) {
  if (const std::optional<LayerView>& layer = problem.layer()) {
    for (const LinearView* linear : {&layer->query, &layer->key, &layer->value, &layer->output}) {
      if (linear->present() && !HasFastProjection(*linear)) return FastKernels::kNone;
    }
  }
  const DataType tokens = problem.embeddings().type, context = problem.context().type;
  return FastKernelsFor(problem.options(), {tokens, context, context}, problem.head_dim(), available);
}

absl::Status ComputeAttend(const AttendProblem& problem, const AttendOutputs& outputs, const ComputeContext& context) {
  const ComputeContext own = ContextFor(context, problem.Flops());
  if (problem.is_double()) return Compute<double>(problem, outputs, own);
  const bool is_fast = problem.layer() && FastKernelsOf(problem, own.fast_kernels) != FastKernels::kNone;
  return is_fast ? Compute<BFloat16>(problem, outputs, own) : Compute<float>(problem, outputs, own);
}

double ScratchBytes(const AttendProblem& problem, int num_threads, bool consumes_weights, std::int64_t top_k) {
  const std::int64_t batch = problem.batch(), queries = problem.query_length(), keys = problem.key_length();
  const EmbeddingsView &tokens = problem.embeddings(), &context = problem.context();
  const bool is_narrow = ElementSize(tokens.type) == 2 || ElementSize(context.type) == 2;
  const bool is_ragged = IsRagged(problem.options());
  const double attention = SdpaScratchBytes({.rows = queries * problem.num_heads() / problem.num_kv_heads(),
                                             .kv_heads = batch * problem.num_kv_heads(),
                                             .key_length = keys,
                                             .head_dim = problem.head_dim(),
                                             .value_dim = problem.value_dim(),
                                             .is_double = problem.is_double(),
                                             .has_narrow = is_narrow,
                                             .consumes_weights = consumes_weights,
                                             .top_k = top_k,
                                             .sequences = is_ragged ? NumSequences(problem.options()) : 1},
                                            num_threads);
  if (!problem.layer()) return attention;
  const LayerView& layer = *problem.layer();
  double numbers = Product(batch, queries, layer.query.out_features) + Product(batch, keys, layer.key.out_features) +
                   Product(batch, keys, layer.value.out_features);
  if (layer.output.present()) numbers += Product(batch, queries, layer.output.in_features);
  if (is_narrow) {  // Copies of the tokens.
    numbers += Product(batch, queries, tokens.dim) + Product(batch, keys, context.dim);
    if (HasNormOrRotary(layer)) {  // Queries and keys of fast kernels, before they are rounded and after.
      numbers += (Product(batch, queries, layer.query.out_features) + Product(batch, keys, layer.key.out_features)) / 2;
    }
  }
  const std::int64_t widest_bias =
      std::max({layer.query.out_features, layer.key.out_features, layer.value.out_features, layer.output.out_features});
  const std::int64_t in_features = std::max({layer.query.in_features, layer.key.in_features, layer.value.in_features,
                                             layer.output.present() ? layer.output.in_features : 0});
  const double size = problem.is_double() ? sizeof(double) : sizeof(float);
  return size * (numbers + static_cast<double>(widest_bias)) + attention + RotaryScratchBytes(problem, num_threads) +
         ProjectionScratchBytes(in_features, num_threads);
}

}  // namespace attend
