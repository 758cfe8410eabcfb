#include "core/kernels/double_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/double_rows.cc"
#include "core/kernels/targets.h"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;
using std::int64_t;

// Every vector has the same eight numbers in it, in as many registers as that takes.
constexpr int64_t kWidth = 8;
using Tag = hn::CappedTag<double, kWidth>;
using Vec = hn::Vec<Tag>;
constexpr int64_t kLanes = HWY_MIN(HWY_LANES(double), kWidth);
constexpr int64_t kVectors = kWidth / kLanes;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

HWY_INLINE Vec Broadcast(double x) { return hn::Set(Tag(), x); }

// The numbers [0, count) of `from`, zeros behind; count in [1, kWidth].
HWY_INLINE const double* Padded(const double* from, int64_t count, double* padded) {
  if (count == kWidth) return from;
  std::fill(padded + count, padded + kWidth, 0.0);
  std::memcpy(padded, from, static_cast<size_t>(count) * sizeof(double));
  return padded;
}

// Adds eight numbers pairwise.
HWY_INLINE double Sum(const double* x) { return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7])); }

double Dot(const double* x, const double* y, int64_t size) {
  const Tag d;
  Vec sum[kVectors];
  for (int64_t i = 0; i < kVectors; ++i) sum[i] = hn::Zero(d);
  HWY_ALIGN double x_padded[kWidth];
  HWY_ALIGN double y_padded[kWidth];
  for (int64_t at = 0; at < size; at += kWidth) {
    const double* x_part = Padded(x + at, HWY_MIN(kWidth, size - at), x_padded);
    const double* y_part = Padded(y + at, HWY_MIN(kWidth, size - at), y_padded);
    for (int64_t i = 0; i < kVectors; ++i) {
      sum[i] = hn::MulAdd(hn::LoadU(d, x_part + i * kLanes), hn::LoadU(d, y_part + i * kLanes), sum[i]);
    }
  }
  HWY_ALIGN double parts[kWidth];
  for (int64_t i = 0; i < kVectors; ++i) hn::Store(sum[i], d, parts + i * kLanes);
  return Sum(parts);
}

double Bias(const DoubleTask& task, const DoubleRow& row, int64_t key) {
  const int64_t at = key * task.bias_stride;
  return task.bias_type == DataType::kFloat64 ? static_cast<const double*>(row.bias)[at]
                                              : static_cast<const float*>(row.bias)[at];
}

// Beyond 30 it is 1; Highway's makes an integer of x, which must hold it.
double Tanh(double x) { return x == x ? hn::GetLane(hn::Tanh(Tag(), Broadcast(std::clamp(x, -30.0, 30.0)))) : x; }

bool AllFinite(const double* numbers, int64_t size) {
  return std::all_of(numbers, numbers + size, [](double x) { return std::isfinite(x); });
}

// Of the largest of finite numbers: divided by its power of two, all are below 1.
int Exponent(const double* numbers, int64_t size) {
  double largest = 0;
  for (int64_t i = 0; i < size; ++i) largest = std::max(largest, std::abs(numbers[i]));
  int exponent = 0;
  static_cast<void>(std::frexp(largest, &exponent));
  return exponent;
}

double Alibi(const DoubleRow& row, int64_t key, double slope) {
  return slope == 0 ? 0 : slope * std::abs(row.position - static_cast<double>(key));
}

// The score of a key that float64's range was too small for on the way, in smaller units: +-infinity only where the
// score itself is beyond that range, or where a bias of -infinity masks. `score` as it is if another input is not
// finite.
double ScoreOnTheEdge(const DoubleTask& task, const DoubleRow& row, int64_t key, double score) {
  const double* numbers = task.key + key * task.key_stride;
  const double bias = row.bias == nullptr ? 0 : Bias(task, row, key);
  if (!(bias < kInfinity) || !std::isfinite(row.alibi_slope) || !AllFinite(row.query, task.head_dim) ||
      !AllFinite(numbers, task.head_dim)) {
    return score;
  }
  if (bias == -kInfinity) return bias;
  constexpr double kUnit = 0x1p-80;
  // The largest numbers become about 2^490, so that sums of products have room above them, and most below.
  constexpr int kLargest = 490;
  const int query_exponent = Exponent(row.query, task.head_dim) - kLargest;
  const int key_exponent = Exponent(numbers, task.head_dim) - kLargest;
  double dot = 0;
  for (int64_t d = 0; d < task.head_dim; ++d) {
    dot = std::fma(std::ldexp(row.query[d], -query_exponent), std::ldexp(numbers[d], -key_exponent), dot);
  }
  int exponent = 0;
  const double product = std::frexp(task.scale, &exponent) * dot;
  exponent += query_exponent + key_exponent;
  double units = std::ldexp(product, exponent - 80);
  if (task.softcap != 0) {
    // Divided before it is scaled: the quotient may be a number where the product is none.
    int cap_exponent = 0;
    const double cap = std::frexp(task.softcap, &cap_exponent);
    units = task.softcap * Tanh(std::ldexp(product / cap, exponent - cap_exponent)) * kUnit;
  }
  return (units + bias * kUnit - Alibi(row, key, row.alibi_slope * kUnit)) / kUnit;
}

void Scores(const DoubleTask& task, const DoubleRow& row, int64_t begin, int64_t end, double* scores) {
  for (int64_t j = begin; j < end; ++j) {
    if (!IsUnmasked(task, row, j)) {
      scores[j] = -kInfinity;
      continue;
    }
    const double product = task.scale * Dot(row.query, task.key + j * task.key_stride, task.head_dim);
    double score = product;
    if (task.softcap != 0) score = task.softcap * Tanh(product / task.softcap);
    if (row.bias != nullptr) score += Bias(task, row, j);
    score -= Alibi(row, j, row.alibi_slope);
    // A softcap makes a finite score of an infinite product too, which says nothing of the score.
    const bool in_range = std::isfinite(product) && std::isfinite(score);
    scores[j] = in_range ? score : ScoreOnTheEdge(task, row, j, score);
  }
}

// exp(x) for x <= 0 or NaN. Highway's makes an integer of x, which must hold it: of NaN and of what is too large that
// is undefined where a scalar cast does it.
HWY_INLINE Vec Exp(Vec x) {
  const Tag d;
  const auto is_number = hn::Eq(x, x);
  return hn::IfThenElse(is_number, hn::Exp(d, hn::Max(hn::IfThenElseZero(is_number, x), Broadcast(-1000.0))), x);
}

// The maximum, or NaN if there is one among the scores: what is subtracted must not hide it.
double Maximum(const DoubleRow& row, const double* scores) {
  double max = row.sink;
  for (int64_t j = row.key_begin; j < row.key_end; ++j) max = scores[j] > max ? scores[j] : max;
  return max;
}

DoubleSoftmax Softmax(const DoubleRow& row, double* scores) {
  const Tag d;
  DoubleSoftmax softmax{Maximum(row, scores), 0};
  const double subtract = softmax.max == -kInfinity ? 0 : softmax.max;
  HWY_ALIGN double parts[kWidth] = {};
  HWY_ALIGN double padded[kWidth];
  bool sees_a_key = false;
  for (int64_t j = row.key_begin; j < row.key_end; j += kWidth) {
    const int64_t count = HWY_MIN(kWidth, row.key_end - j);
    std::fill(padded + count, padded + kWidth, -kInfinity);
    std::memcpy(padded, scores + j, static_cast<size_t>(count) * sizeof(double));
    for (int64_t i = 0; i < kWidth; i += kLanes) {
      const Vec score = hn::Load(d, padded + i);
      const auto masked = hn::Eq(score, Broadcast(-kInfinity));
      const Vec p = hn::IfThenElse(masked, Broadcast(-0.0), Exp(hn::Sub(score, Broadcast(subtract))));
      sees_a_key = sees_a_key || !hn::AllTrue(d, masked);
      hn::Store(hn::Add(hn::Load(d, parts + i), p), d, parts + i);
      hn::Store(p, d, padded + i);
    }
    std::memcpy(scores + j, padded, static_cast<size_t>(count) * sizeof(double));
  }
  if (sees_a_key) softmax.sum = Sum(parts) + hn::GetLane(Exp(Broadcast(row.sink - subtract)));
  return softmax;
}

void Values(const DoubleTask& task, const double* exponentials, int64_t begin, int64_t end, double* output) {
  const Tag d;
  for (int64_t j = begin; j < end; ++j) {
    const double p = exponentials[j];
    if (p == 0 && std::signbit(p)) continue;
    const double* value = task.value + j * task.value_stride;
    int64_t v = 0;
    for (; v + kLanes <= task.value_dim; v += kLanes) {
      hn::StoreU(hn::MulAdd(Broadcast(p), hn::LoadU(d, value + v), hn::LoadU(d, output + v)), d, output + v);
    }
    for (; v < task.value_dim; ++v) {
      output[v] = hn::GetLane(hn::MulAdd(Broadcast(p), Broadcast(value[v]), Broadcast(output[v])));
    }
  }
}

// The log-sum-exp: the sink where no key is visible.
float LogSumExp(const DoubleRow& row, const DoubleSoftmax& softmax) {
  if (softmax.sum == 0) return static_cast<float>(row.sink);
  if (!(softmax.sum > 0 && softmax.sum < kInfinity)) return std::numeric_limits<float>::quiet_NaN();
  return static_cast<float>(softmax.max + hn::GetLane(hn::Log(Tag(), Broadcast(softmax.sum))));
}

void Finish(const DoubleTask& task, const DoubleRow& row, const DoubleSoftmax& softmax, const double* exponentials) {
  if (row.log_sum_exp != nullptr) *row.log_sum_exp = LogSumExp(row, softmax);
  if (row.output != nullptr && softmax.sum != 0) {
    // Adding +0 turns a -0 into +0.
    for (int64_t v = 0; v < task.value_dim; ++v) row.output[v] = row.output[v] / softmax.sum + 0.0;
  }
  if (row.weights == nullptr) return;
  std::fill(row.weights, row.weights + task.key_length, 0.0);
  for (int64_t j = row.key_begin; j < row.key_end; ++j) {
    const bool masked = exponentials[j] == 0 && std::signbit(exponentials[j]);
    if (!masked) row.weights[j] = exponentials[j] / softmax.sum;
  }
}

}  // namespace

const DoubleKernels& DoubleFunctions() {
  static constexpr DoubleKernels kKernels = {Scores, Softmax, Values, Finish, Dot};
  return kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attend {
const DoubleKernels& DoubleKernelsFor(InstructionSet set) { ATTEND_RETURN_FOR(set, DoubleFunctions) }
}  // namespace attend
#endif
