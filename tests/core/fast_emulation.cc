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

// Some numbers, `stride` apart.
struct Strided {
  const float* data;
  std::int64_t stride = 1;
  float operator[](std::int64_t i) const { return data[i * stride]; }
};

float AddProduct(float a, float b, float sum) { return OrZero(std::fma(OrZero(a), OrZero(b), OrZero(sum))); }

// VDPBF16PS on pair after pair: the second product first, each fused with its sum, subnormal numbers taken and given as
// 0. What is missing of the last pair is 0.
float AddPairs(Strided a, Strided b, std::int64_t size, float sum) {
  for (std::int64_t i = 0; i < size; i += 2) {
    sum = AddProduct(i + 1 < size ? a[i + 1] : 0, i + 1 < size ? b[i + 1] : 0, sum);
    sum = AddProduct(a[i], b[i], sum);
  }
  return sum;
}

// TDPBF16PS on block after block of 32: a chain over the even numbers and one over the odd ones, which are added
// together and then to the sum; subnormal numbers likewise.
float AddBlocks(Strided a, Strided b, std::int64_t size, float sum) {
  for (std::int64_t first = 0; first < size; first += 32) {
    float even = 0, odd = 0;
    for (std::int64_t i = first; i < std::min(first + 32, size); ++i) {
      float& chain = i % 2 == 0 ? even : odd;
      chain = AddProduct(a[i], b[i], chain);
    }
    sum = OrZero(OrZero(sum) + OrZero(even + odd));
  }
  return sum;
}

// The sum that a family adds to.
using AddProducts = float(Strided a, Strided b, std::int64_t size, float sum);

AddProducts& SumOf(FastKernels family) { return family == FastKernels::kAvx512Amx ? AddBlocks : AddPairs; }

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
Floats Attend(const Head& h, AddProducts& add) {
  Floats output(static_cast<std::size_t>(h.value_dim)), scores(kKeyBlock);
  float max = -std::numeric_limits<float>::infinity(), sum = 0, rounded = 0;
  for (std::int64_t first = 0; first < h.keys; first += kKeyBlock) {
    const std::int64_t count = std::min(kKeyBlock, h.keys - first);
    for (std::int64_t k = 0; k < count; ++k) {
      const float score = add({h.query}, {h.key + (first + k) * h.head_dim}, h.head_dim, 0) * h.scale;
      scores[k] = first + k < h.visible ? score : -std::numeric_limits<float>::infinity();
    }
    const float block_max = *std::max_element(scores.begin(), scores.begin() + count);
    if (block_max > max + 8) {
      const float factor = Exp2(max - block_max);
      max = block_max, sum *= factor, rounded *= factor;
      for (float& o : output) o *= factor;
    }
    for (std::int64_t k = 0; k < count; ++k) {
      const float weight = Exp2(scores[k] - max);
      sum += weight;
      scores[k] = Rounded(weight);
      rounded += scores[k];
    }
    for (std::int64_t v = 0; v < h.value_dim; ++v) {
      output[v] = add({h.value + first * h.value_dim + v, h.value_dim}, {scores.data()}, count, output[v]);
    }
  }
  for (float& o : output) o = std::fma(o, 1 / rounded, 0.0f);
  return output;
}

// [B, H, T, V] of dense [B, H, T, E], [B, K, S, E] and [B, K, S, V].
Floats AttendAll(const Floats& query, const Floats& key, const Floats& value, const SdpaCaseSpec& s, AddProducts& add) {
  Floats output;
  const float scale = static_cast<float>(1 / std::sqrt(static_cast<double>(s.head_dim)));
  for (std::int64_t i = 0; i < s.batch * s.heads * s.queries; ++i) {
    const std::int64_t t = i % s.queries, head = i / s.queries;
    const std::int64_t kv = head / s.heads * s.kv_heads + head % s.heads * s.kv_heads / s.heads;
    const std::int64_t visible = s.causal == CausalMode::kBottomRight ? t + 1 + s.keys - s.queries : s.keys;
    const Floats row = Attend(
        {query.data() + i * s.head_dim, key.data() + kv * s.keys * s.head_dim, value.data() + kv * s.keys * s.value_dim,
         s.keys, visible, s.head_dim, s.value_dim, static_cast<float>(scale * 1.4426950408889634)},
        add);
    output.insert(output.end(), row.begin(), row.end());
  }
  return output;
}

// [B, heads, T, dim] of tokens [B, T, D] and weights [heads * dim, D].
Floats ProjectHeads(const Floats& tokens, const Floats& weight, const LayerSpec& s, std::int64_t heads,
                    std::int64_t dim, AddProducts& add) {
  Floats result;
  for (std::int64_t i = 0; i < s.batch * heads * s.queries; ++i) {
    const std::int64_t t = i % s.queries, head = i / s.queries % heads, b = i / s.queries / heads;
    for (std::int64_t e = 0; e < dim; ++e) {
      result.push_back(add({tokens.data() + (b * s.queries + t) * s.embed},
                           {weight.data() + (head * dim + e) * s.embed}, s.embed, 0));
    }
  }
  return Rounded(result);
}

}  // namespace

std::vector<double> EmulatedSdpa(const SdpaCase& c, FastKernels family) {
  const Floats output = AttendAll(Rounded(c.query), Rounded(c.key), Rounded(c.value), c.spec, SumOf(family));
  return {output.begin(), output.end()};
}

std::vector<double> EmulatedLayer(const LayerCase& c, FastKernels family) {
  AddProducts& add = SumOf(family);
  const LayerSpec& s = c.spec;
  const Floats tokens = c.embeddings.Floats();
  const Floats query = ProjectHeads(tokens, c.query.Floats(), s, s.heads, s.head_dim, add);
  const Floats key = ProjectHeads(tokens, c.key.Floats(), s, s.kv_heads, s.head_dim, add);
  const Floats value = ProjectHeads(tokens, c.value.Floats(), s, s.kv_heads, s.value_dim, add);
  SdpaCaseSpec sdpa;
  sdpa.batch = s.batch, sdpa.heads = s.heads, sdpa.kv_heads = s.kv_heads, sdpa.queries = sdpa.keys = s.queries;
  sdpa.head_dim = s.head_dim, sdpa.value_dim = s.value_dim, sdpa.causal = s.causal;
  const Floats heads = Rounded(AttendAll(query, key, value, sdpa, add));
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
