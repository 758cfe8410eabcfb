#include "core/compute/exact_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace attend {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kSmallestNormal = std::numeric_limits<float>::min();

// Beyond this softcap, errors of float32's smallest numbers matter.
constexpr double kLargestSoftcap = 0x1p60;

// Beyond this product of slope and distance, ALiBi could lift a score that a bias took below float32's range above one
// that is within it. Up to it, it could not even if float32 had larger exponents: log2(e) times it is less than half of
// 2^104, the distance of the range's last numbers, so that the sum would be rounded to what it was.
constexpr double kLargestAlibi = 0x1p100;

// Sums of 2^24 terms of at most this size, with weights of at most 2^8, stay in float32's range.
constexpr double kSurelyInRange = 0x1p90;

// The distance between float32's subnormal numbers, and the error of a score that may come of it.
constexpr double kSmallestStep = 0x1p-149, kNegligible = 0x1p-40;

constexpr std::uint32_t kInfinityBits = 0x7f800000u;

std::uint32_t MagnitudeBits(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits & 0x7fffffffu;
}

float OfBits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
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
  if (options.softcap && (*options.softcap > kLargestSoftcap || task.softcap == 0)) return true;
  if (options.alibi_slopes.empty()) return false;
  const double slope = options.alibi_slopes[h];
  return std::abs(slope) * static_cast<double>(problem.query_length() + problem.key_length()) > kLargestAlibi;
}

bool ScalesBelowFloatRange(const AttentionTask& task, const float* query) {
  if (task.query_scale == 0) return false;  // The scale is 0, or LeavesFloatRange is true.
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
      task_(MakeDoubleTask(problem_, kv.batch)),
      memory_(ExactRowsDoubles(problem_.key_length(), problem_.head_dim(), problem_.value_dim())),
      narrow_(IsNarrow(problem_.query()) || IsNarrow(problem_.key()) || IsNarrow(problem_.value())
                  ? ExactRowsFloats(problem_.head_dim(), problem_.value_dim())
                  : 0) {
  query_ = memory_.data();
  key_ = query_ + problem_.head_dim();
  value_ = key_ + problem_.head_dim();
  output_ = value_ + problem_.value_dim();
  exponentials_ = output_ + problem_.value_dim();
  largest_ = reinterpret_cast<float*>(exponentials_);
  std::fill(largest_, largest_ + 2 * problem_.key_length(), std::numeric_limits<float>::quiet_NaN());
  task_.key = key_;  // The key that was widened last, whatever its index: the stride is 0.
  task_.value = value_;
}

// Row j of a head, valid until the next call.
const float* ExactRows::Floats(const InputRows& rows, std::int64_t head, std::int64_t j) {
  if (!IsNarrow(rows.tensor)) return rows.tensor.As<const float>().Row(kv_.batch, head, j);
  rows.Widen(run_.kernels.convert, {kv_.batch, head}, j, narrow_.data());
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

// Magnitudes have the order of their bits; NaN is the largest of all.
void ExactRows::Magnitudes::Add(const float* numbers, std::int64_t size) {
  std::uint32_t all = 0, largest = 0;
  for (std::int64_t i = 0; i < size; ++i) {
    const std::uint32_t bits = MagnitudeBits(numbers[i]);
    all = std::max(all, bits);
    largest = std::max(largest, bits < kInfinityBits ? bits : 0);
  }
  finite = finite && all < kInfinityBits;
  nan = nan || all > kInfinityBits;
  largest_finite = std::max(largest_finite, double{OfBits(largest)});
}

void ExactRows::Magnitudes::Add(const Magnitudes& other) {
  finite = finite && other.finite;
  nan = nan || other.nan;
  largest_finite = std::max(largest_finite, other.largest_finite);
}

void ExactRows::Magnitudes::Add(double number) {
  if (std::isfinite(number)) {
    largest_finite = std::max(largest_finite, std::abs(number));
  } else {
    finite = false;
    nan = nan || std::isnan(number);
  }
}

// Of row j of keys or values. `known` is negative if a number is not finite, and NaN before the row has been read.
ExactRows::Magnitudes ExactRows::MagnitudesOf(const InputRows& rows, std::int64_t j, float& known) {
  Magnitudes of;
  if (std::isnan(known)) {
    of.Add(Floats(rows, kv_.head, j), rows.tensor.dim);
    known = static_cast<float>(of.finite ? of.largest_finite : -of.largest_finite);
  }
  of.finite = !std::signbit(known);
  of.largest_finite = std::abs(known);
  return of;
}

// Returns whether there is a key that no bias masks; beside a query with NaN, whether there is a key to look at.
bool ExactRows::InspectKeys(const RowCoordinates& at, bool behind_bias) {
  const KeyRange visible = problem_.VisibleKeys(kv_.batch, at.query);
  bool any = false;
  for (std::int64_t j = visible.begin; j < visible.end; ++j) {
    if (!Sees(at, j)) continue;
    const float bias = Bias(at, j);
    const bool masked = bias == -kInfinity;
    if (masked && !behind_bias) continue;
    if (query_seen_.nan) return true;
    keys_seen_.Add(MagnitudesOf(KeysOf(problem_), j, largest_[2 * j]));
    if (masked) continue;
    values_seen_.Add(MagnitudesOf(ValuesOf(problem_), j, largest_[2 * j + 1]));
    logits_seen_.Add(bias);
    any = true;
  }
  return any;
}

ExactRows::Inputs ExactRows::Inspect(const RowCoordinates& at, bool behind_bias) {
  const AttentionOptions& options = problem_.options();
  query_seen_ = keys_seen_ = values_seen_ = logits_seen_ = Magnitudes();
  query_seen_.Add(Floats(QueriesOf(problem_), at.head, at.query), problem_.head_dim());
  const bool any = InspectKeys(at, behind_bias);
  if (any && query_seen_.nan) return Inputs::kNan;
  if (!any && !behind_bias) return Inputs::kNoKeys;
  if (!any) return query_seen_.finite && keys_seen_.finite ? Inputs::kNoKeys : Inputs::kNotFinite;
  const double sink = options.sinks.empty() ? -kInfinity : options.sinks[at.head];
  if (sink != -kInfinity) logits_seen_.Add(sink);
  const bool finite = query_seen_.finite && keys_seen_.finite && values_seen_.finite && logits_seen_.finite &&
                      (options.alibi_slopes.empty() || std::isfinite(options.alibi_slopes[at.head]));
  return finite ? Inputs::kFinite : Inputs::kNotFinite;
}

bool ExactRows::MayLeaveFloatRange(const AttentionTask& task) const {
  const double query = std::abs(double{task.query_scale}) * query_seen_.largest_finite;
  const double product = static_cast<double>(task.head_dim) * query * keys_seen_.largest_finite;
  return !(std::max({query, product, values_seen_.largest_finite, logits_seen_.largest_finite}) < kSurelyInRange);
}

bool ExactRows::ShowsLostNumbers() const {
  const double softcap = std::max(1.0, problem_.options().softcap.value_or(1));
  return static_cast<double>(problem_.head_dim()) * keys_seen_.largest_finite * kSmallestStep * softcap > kNegligible;
}

bool ExactRows::LosesSink(const RowCoordinates& at, const QueryRow& row) const {
  return std::isinf(row.sink) &&
         std::isfinite(problem_.options().sinks.empty() ? -double{kInfinity} : problem_.options().sinks[at.head]);
}

DoubleRow ExactRows::MakeRow(const RowCoordinates& at) {
  const float* query = Floats(QueriesOf(problem_), at.head, at.query);
  std::copy(query, query + problem_.head_dim(), query_);
  DoubleRow row = MakeDoubleRow(problem_, kv_.batch, at.head, at.query);
  row.query = query_;
  return row;
}

void ExactRows::WidenKey(std::int64_t j) {
  const float* key = Floats(KeysOf(problem_), kv_.head, j);
  std::copy(key, key + problem_.head_dim(), key_);
}

void ExactRows::WidenValue(std::int64_t j) {
  const float* value = Floats(ValuesOf(problem_), kv_.head, j);
  std::copy(value, value + problem_.value_dim(), value_);
}

// As in FLOAT64 (compute_double.cc): a row without any weight that sees a key of finite numbers becomes NaN, because
// its scores are below float64's range and nothing says by how much; but not beside a finite sink.
void ExactRows::RefuseScoresBelowRange(const RowCoordinates& at, const DoubleRow& row, DoubleSoftmax& softmax) {
  const auto are_finite = [this](const auto* numbers) {
    return std::all_of(numbers, numbers + task_.head_dim, [](auto x) { return std::isfinite(x); });
  };
  if (std::isfinite(row.sink) || !are_finite(row.query) || !std::isfinite(row.alibi_slope)) return;
  for (std::int64_t j = row.key_begin; j < row.key_end; ++j) {
    if (!Sees(at, j) || !std::isfinite(Bias(at, j)) || !are_finite(Floats(KeysOf(problem_), kv_.head, j))) continue;
    exponentials_[j] = softmax.max = softmax.sum = std::numeric_limits<double>::quiet_NaN();
  }
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
  DoubleSoftmax softmax = kernels_.softmax(row, exponentials_);
  if (softmax.sum == 0) RefuseScoresBelowRange(at, row, softmax);
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
    const bool masked = exponentials_[j] == 0 && std::signbit(exponentials_[j]);
    if (!masked) to.weights[j] = static_cast<float>(exponentials_[j] / softmax.sum);
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
