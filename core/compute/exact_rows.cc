#include "core/compute/exact_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace attend {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kSmallestNormal = std::numeric_limits<float>::min();

// A softcap and the largest distance times a slope beyond which errors of float32's smallest numbers matter, or a
// product could move a bias from one end of float32's range to the other.
constexpr double kLargestSoftcap = 0x1p60;
constexpr double kLargestAlibi = 0x1p120;

// Float32's numbers below its smallest normal one are this far apart; how far a score may be off for it.
constexpr double kSmallestStep = 0x1p-149, kNegligible = 0x1p-40;

constexpr std::uint32_t kInfinityBits = 0x7f800000u;

std::uint32_t MagnitudeBits(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits & 0x7fffffffu;
}

// The largest magnitude, whose order is that of the bits; NaN is the largest of all.
std::uint32_t LargestBits(const float* row, std::int64_t size) {
  std::uint32_t largest = 0;
  for (std::int64_t i = 0; i < size; ++i) largest = std::max(largest, MagnitudeBits(row[i]));
  return largest;
}

bool IsNarrow(const TypedHeadsView& view) { return view.type != DataType::kFloat32; }

}  // namespace

std::int64_t ExactRowsDoubles(std::int64_t key_length, std::int64_t head_dim, std::int64_t value_dim) {
  return key_length + 2 * head_dim + 2 * value_dim;
}

std::int64_t ExactRowsFloats(std::int64_t head_dim, std::int64_t value_dim) { return std::max(head_dim, value_dim); }

bool LeavesFloatRange(const SdpaProblem& problem, const AttentionTask& task, std::int64_t h) {
  const AttentionOptions& options = problem.options();
  if (problem.scale() != 0 && !std::isnormal(task.query_scale)) return true;
  if (options.softcap && *options.softcap > kLargestSoftcap) return true;
  if (options.alibi_slopes.empty()) return false;
  const double slope = options.alibi_slopes[h];
  return std::abs(slope) * static_cast<double>(problem.query_length() + problem.key_length()) > kLargestAlibi;
}

bool ScalesBelowFloatRange(const AttentionTask& task, const float* query) {
  if (task.query_scale == 0) return false;  // Given so, or LeavesFloatRange.
  // Not below the limit: zero, which less 1 is the largest number, and what scales to a normal number.
  const std::uint32_t limit = MagnitudeBits(kSmallestNormal / task.query_scale);
  std::uint32_t lost = 0;
  for (std::int64_t d = 0; d < task.head_dim; ++d) lost |= MagnitudeBits(query[d]) - 1 < limit - 1 ? 1 : 0;
  return lost != 0 && limit != 0;
}

ExactRows::ExactRows(const SdpaRun& run, KvHead kv)
    : run_(run),
      problem_(run.problem),
      kv_(kv),
      kernels_(DoubleKernelsFor(run.context.instruction_set)),
      memory_(ExactRowsDoubles(problem_.key_length(), problem_.head_dim(), problem_.value_dim())),
      narrow_(IsNarrow(problem_.query()) || IsNarrow(problem_.key()) || IsNarrow(problem_.value())
                  ? ExactRowsFloats(problem_.head_dim(), problem_.value_dim())
                  : 0) {
  query_ = memory_.data();
  key_ = query_ + problem_.head_dim();
  value_ = key_ + problem_.head_dim();
  output_ = value_ + problem_.value_dim();
  exponentials_ = output_ + problem_.value_dim();
  task_.key = key_;  // One key, which is whichever was widened last: rows 0 apart.
  task_.value = value_;
  task_.key_length = problem_.key_length();
  task_.head_dim = problem_.head_dim();
  task_.value_dim = problem_.value_dim();
  task_.scale = problem_.scale();
  task_.softcap = problem_.options().softcap.value_or(0);
  const MaskView& key_mask = problem_.options().key_mask;
  if (key_mask) task_.key_mask = key_mask.Row(kv.batch, 0, 0);
  task_.key_mask_stride = key_mask.dim_stride;
  task_.mask_stride = problem_.options().mask.dim_stride;
  task_.bias_type = problem_.options().bias.type;
  task_.bias_stride = problem_.options().bias.dim_stride;
}

// Row j of a head, valid until the next call.
const float* ExactRows::Floats(const TypedHeadsView& view, std::int64_t head, std::int64_t j) {
  const std::byte* row = view.Row(kv_.batch, head, j);
  if (!IsNarrow(view)) return reinterpret_cast<const float*>(row);
  run_.kernels.convert.widen(view.type, row, view.dim, narrow_.data());
  return narrow_.data();
}

bool ExactRows::Sees(const RowCoordinates& at, std::int64_t j) const {
  const MaskView &mask = problem_.options().mask, &key_mask = problem_.options().key_mask;
  return (!mask || mask.Row(kv_.batch, at.head, at.query)[j * mask.dim_stride] != 0) &&
         (!key_mask || key_mask.Row(kv_.batch, 0, 0)[j * key_mask.dim_stride] != 0);
}

float ExactRows::Bias(const RowCoordinates& at, std::int64_t j) const {
  const HeadsView bias = problem_.options().bias.As<const float>();
  return bias ? bias.Row(kv_.batch, at.head, at.query)[j * bias.dim_stride] : 0;
}

ExactRows::Inputs ExactRows::Inspect(const RowCoordinates& at, bool behind_bias) {
  const AttentionOptions& options = problem_.options();
  const KeyRange visible = problem_.VisibleKeys(kv_.batch, at.query);
  const auto largest = [this](const TypedHeadsView& view, std::int64_t head, std::int64_t j) {
    return LargestBits(Floats(view, head, j), view.dim);
  };
  std::uint32_t keys = 0, others = 0;
  bool any = false;
  for (std::int64_t j = visible.begin; j < visible.end; ++j) {
    if (!Sees(at, j)) continue;
    const float bias = Bias(at, j);
    const bool masked = bias == -kInfinity;
    if (masked && !behind_bias) continue;
    keys = std::max(keys, largest(problem_.key(), kv_.head, j));
    if (!masked) others = std::max({others, MagnitudeBits(bias), largest(problem_.value(), kv_.head, j)});
    if (std::max(keys, others) >= kInfinityBits) return Inputs::kNotFinite;
    any = any || !masked;
  }
  if (!any && !behind_bias) return Inputs::kNoKeys;
  std::memcpy(&largest_key_, &keys, sizeof(keys));
  if (largest(problem_.query(), at.head, at.query) >= kInfinityBits) return Inputs::kNotFinite;
  if (!any) return Inputs::kNoKeys;
  const double slope = options.alibi_slopes.empty() ? 0 : options.alibi_slopes[at.head];
  const double sink = options.sinks.empty() ? -kInfinity : options.sinks[at.head];
  const bool finite = std::isfinite(slope) && (std::isfinite(sink) || sink == -kInfinity);
  return finite ? Inputs::kFinite : Inputs::kNotFinite;
}

bool ExactRows::ShowsLostNumbers() const {
  const double softcap = std::max(1.0, problem_.options().softcap.value_or(1));
  return static_cast<double>(problem_.head_dim()) * largest_key_ * kSmallestStep * softcap > kNegligible;
}

bool ExactRows::LosesSink(const RowCoordinates& at, const QueryRow& row) const {
  return std::isinf(row.sink) &&
         std::isfinite(problem_.options().sinks.empty() ? -double{kInfinity} : problem_.options().sinks[at.head]);
}

DoubleRow ExactRows::MakeRow(const RowCoordinates& at) {
  const AttentionOptions& options = problem_.options();
  const KeyRange visible = problem_.VisibleKeys(kv_.batch, at.query);
  const float* query = Floats(problem_.query(), at.head, at.query);
  std::copy(query, query + problem_.head_dim(), query_);
  DoubleRow row;
  row.query = query_;
  row.key_begin = visible.begin;
  row.key_end = visible.end;
  if (options.mask) row.mask = options.mask.Row(kv_.batch, at.head, at.query);
  if (options.bias) row.bias = options.bias.Row(kv_.batch, at.head, at.query);
  if (!options.alibi_slopes.empty()) row.alibi_slope = options.alibi_slopes[at.head];
  row.position = static_cast<double>(at.query + problem_.PositionOffset(kv_.batch));
  if (!options.sinks.empty()) row.sink = options.sinks[at.head];
  return row;
}

void ExactRows::WidenKey(std::int64_t j) {
  const float* key = Floats(problem_.key(), kv_.head, j);
  std::copy(key, key + problem_.head_dim(), key_);
}

void ExactRows::WidenValue(std::int64_t j) {
  const float* value = Floats(problem_.value(), kv_.head, j);
  std::copy(value, value + problem_.value_dim(), value_);
}

bool ExactRows::Compute(const RowCoordinates& at, const QueryRow& to) {
  DoubleRow row = MakeRow(at);
  row.output = output_;
  row.log_sum_exp = to.log_sum_exp;
  const auto to_floats = [](const double* from, std::int64_t count, float* numbers) {
    std::transform(from, from + count, numbers, [](double x) { return static_cast<float>(x); });
  };
  for (std::int64_t j = row.key_begin; j < row.key_end; ++j) {
    if (j % kKeysPerTile == 0 && run_.Cancelled()) return false;
    WidenKey(j);
    kernels_.scores(task_, row, j, j + 1, exponentials_);
  }
  if (to.scores != nullptr) {
    std::fill(to.scores, to.scores + task_.key_length, -kInfinity);
    to_floats(exponentials_ + row.key_begin, row.key_end - row.key_begin, to.scores + row.key_begin);
  }
  const DoubleSoftmax softmax = kernels_.softmax(row, exponentials_);
  std::fill(output_, output_ + task_.value_dim, 0.0);
  for (std::int64_t j = row.key_begin; j < row.key_end; ++j) {
    if (j % kKeysPerTile == 0 && run_.Cancelled()) return false;
    WidenValue(j);
    kernels_.values(task_, exponentials_, j, j + 1, output_);
  }
  kernels_.finish(task_, row, softmax, exponentials_);
  if (to.output != nullptr) to_floats(output_, task_.value_dim, to.output);
  if (to.weights == nullptr) return true;
  std::fill(to.weights, to.weights + task_.key_length, 0.0f);
  for (std::int64_t j = row.key_begin; j < row.key_end; ++j) {
    if (exponentials_[j] != 0) to.weights[j] = static_cast<float>(exponentials_[j] / softmax.sum);
  }
  return true;
}

void ExactRows::CompleteScores(const RowCoordinates& at, const QueryRow& to) {
  const KeyRange visible = problem_.VisibleKeys(kv_.batch, at.query);
  DoubleRow row;
  for (std::int64_t j = visible.begin; j < visible.end; ++j) {
    if (to.scores[j] != -kInfinity || !Sees(at, j) || Bias(at, j) == -kInfinity) continue;
    if (row.query == nullptr) row = MakeRow(at);
    WidenKey(j);
    kernels_.scores(task_, row, j, j + 1, exponentials_);
    if (std::isfinite(exponentials_[j])) to.scores[j] = static_cast<float>(exponentials_[j]);
  }
}

}  // namespace attend
