#include "tests/core/fast_emulation.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/kernels/kernel_table.h"

namespace attend::testing {
namespace {

using Floats = std::vector<float>;

float OrZero(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }

// VDPBF16PS: the second product first, each fused with its sum, subnormal numbers taken and given as 0.
float AddDot(const float* a, const float* b, float sum) {
  sum = OrZero(std::fma(OrZero(a[1]), OrZero(b[1]), OrZero(sum)));
  return OrZero(std::fma(OrZero(a[0]), OrZero(b[0]), sum));
}

float Chain(const float* a, const float* b, std::int64_t size) {
  float sum = 0;
  for (std::int64_t i = 0; i < size; i += 2) sum = AddDot(a + i, b + i, sum);
  return sum;
}

// To nearest, ties to even.
float Rounded(float x) { return TypedTensor::From(Floats{x}, DataType::kBFloat16).Floats()[0]; }
Floats Rounded(const Floats& x) { return TypedTensor::From(x, DataType::kBFloat16).Floats(); }

// As Exp2 of vector_math-inl.h.
float Exp2(float x) {
  if (x < -126.0f) return 0;
  const float magic = 12583039.0f;
  const float t = x + magic;
  const float f = x - (t - magic);
  float p = std::fma(0.00132647145f, f, 0.00967150927f);
  for (float c : {0.0555073358f, 0.240222424f, 0.693147004f, 1.0f}) p = std::fma(p, f, c);
  std::uint32_t bits;
  std::memcpy(&bits, &t, sizeof(bits));
  bits <<= 23;
  float power;
  std::memcpy(&power, &bits, sizeof(power));
  return p * power;
}

struct Head {
  const float* query;  // One row.
  const float* key;
  const float* value;
  std::int64_t keys, visible, head_dim, value_dim;
  float scale;
};

// One row of output.
Floats Attend(const Head& h) {
  Floats output(static_cast<std::size_t>(h.value_dim)), scores(kKeyBlock);
  float max = -std::numeric_limits<float>::infinity(), sum = 0, rounded = 0;
  for (std::int64_t first = 0; first < h.keys; first += kKeyBlock) {
    const std::int64_t count = std::min(kKeyBlock, h.keys - first);
    for (std::int64_t k = 0; k < count; ++k) {
      const float score = Chain(h.query, h.key + (first + k) * h.head_dim, h.head_dim) * h.scale;
      scores[k] = first + k < h.visible ? score : -std::numeric_limits<float>::infinity();
    }
    const float block_max = *std::max_element(scores.begin(), scores.begin() + count);
    if (block_max > max + 8) {
      const float factor = Exp2(max - block_max);
      max = block_max, sum *= factor, rounded *= factor;
      for (float& o : output) o *= factor;
    }
    for (std::int64_t k = 0; k < count; k += 2) {
      const bool alone = k + 1 == count;
      const float weights[2] = {Exp2(scores[k] - max), alone ? 0 : Exp2(scores[k + 1] - max)};
      const float pair[2] = {Rounded(weights[0]), Rounded(weights[1])};
      sum = sum + weights[0] + weights[1];
      rounded = rounded + pair[0] + pair[1];
      for (std::int64_t v = 0; v < h.value_dim; ++v) {
        const float* value = h.value + (first + k) * h.value_dim + v;
        const float values[2] = {value[0], alone ? 0 : value[h.value_dim]};
        output[v] = AddDot(values, pair, output[v]);
      }
    }
  }
  for (float& o : output) o = std::fma(o, 1 / rounded, 0.0f);
  return output;
}

// [B, H, T, V] of dense [B, H, T, E], [B, K, S, E] and [B, K, S, V].
Floats AttendAll(const Floats& query, const Floats& key, const Floats& value, const SdpaCaseSpec& s) {
  Floats output;
  const float scale = static_cast<float>(1 / std::sqrt(static_cast<double>(s.head_dim)));
  for (std::int64_t i = 0; i < s.batch * s.heads * s.queries; ++i) {
    const std::int64_t t = i % s.queries, head = i / s.queries;
    const std::int64_t kv = head / s.heads * s.kv_heads + head % s.heads * s.kv_heads / s.heads;
    const std::int64_t visible = s.causal == CausalMode::kBottomRight ? t + 1 + s.keys - s.queries : s.keys;
    const Floats row = Attend({query.data() + i * s.head_dim, key.data() + kv * s.keys * s.head_dim,
                               value.data() + kv * s.keys * s.value_dim, s.keys, visible, s.head_dim, s.value_dim,
                               static_cast<float>(scale * 1.4426950408889634)});
    output.insert(output.end(), row.begin(), row.end());
  }
  return output;
}

// [B, heads, T, dim] of tokens [B, T, D] and weights [heads * dim, D].
Floats ProjectHeads(const Floats& tokens, const Floats& weight, const LayerSpec& s, std::int64_t heads,
                    std::int64_t dim) {
  Floats result;
  for (std::int64_t i = 0; i < s.batch * heads * s.queries; ++i) {
    const std::int64_t t = i % s.queries, head = i / s.queries % heads, b = i / s.queries / heads;
    for (std::int64_t e = 0; e < dim; ++e) {
      result.push_back(
          Chain(tokens.data() + (b * s.queries + t) * s.embed, weight.data() + (head * dim + e) * s.embed, s.embed));
    }
  }
  return Rounded(result);
}

}  // namespace

std::vector<double> EmulatedSdpa(const SdpaCase& c) {
  const Floats output = AttendAll(Rounded(c.query), Rounded(c.key), Rounded(c.value), c.spec);
  return {output.begin(), output.end()};
}

std::vector<double> EmulatedLayer(const LayerCase& c) {
  const LayerSpec& s = c.spec;
  const Floats tokens = c.embeddings.Floats();
  const Floats query = ProjectHeads(tokens, c.query.Floats(), s, s.heads, s.head_dim);
  const Floats key = ProjectHeads(tokens, c.key.Floats(), s, s.kv_heads, s.head_dim);
  const Floats value = ProjectHeads(tokens, c.value.Floats(), s, s.kv_heads, s.value_dim);
  SdpaCaseSpec sdpa;
  sdpa.batch = s.batch, sdpa.heads = s.heads, sdpa.kv_heads = s.kv_heads, sdpa.queries = sdpa.keys = s.queries;
  sdpa.head_dim = s.head_dim, sdpa.value_dim = s.value_dim, sdpa.causal = s.causal;
  const Floats heads = Rounded(AttendAll(query, key, value, sdpa));
  std::vector<double> all;
  for (std::int64_t b = 0; b < s.batch; ++b) {
    for (std::int64_t t = 0; t < s.queries; ++t) {
      for (std::int64_t h = 0; h < s.heads; ++h) {
        const float* row = heads.data() + ((b * s.heads + h) * s.queries + t) * s.value_dim;
        all.insert(all.end(), row, row + s.value_dim);
      }
    }
  }
  for (const Floats* part : {&query, &key, &value}) all.insert(all.end(), part->begin(), part->end());
  return all;
}

}  // namespace attend::testing
