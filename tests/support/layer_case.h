// Layers with norms and rotary embedding made from a handful of numbers, in any type, and their results.
#ifndef ATTEND_TESTS_SUPPORT_LAYER_CASE_H_
#define ATTEND_TESTS_SUPPORT_LAYER_CASE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <iostream>
#include <utility>
#include <vector>

#include "core/layer/attend_problem.h"
#include "core/layer/compute_attend.h"
#include "tests/support/sdpa_case.h"
#include "tests/support/typed_tensor.h"

namespace attend::testing {

enum class NormOver { kNothing, kHead, kToken };

struct LayerSpec {
  DataType type = DataType::kFloat32, weight_type = DataType::kFloat32;
  std::int64_t batch = 1, queries = 5, keys = 5, embed = 24;
  std::int64_t heads = 1, kv_heads = 1, head_dim = 8, value_dim = 8;
  bool context = false;
  NormOver query_norm = NormOver::kNothing, key_norm = NormOver::kNothing;
  NormKind kind = NormKind::kRms;
  bool adds_one = false, norm_bias = false;
  std::int64_t rotary_dim = 0;
  bool interleaved = false;
  double rotary_factor = 1;
  bool norms_after_rotary = false;
  std::int64_t position_offset = 0;
  std::vector<std::int64_t> position_offsets;
  CausalMode causal = CausalMode::kNone;
  std::vector<std::int64_t> valid_lengths, query_lengths;  // query_lengths with a context alone.
  std::vector<std::int64_t> query_offsets, key_offsets;    // Ragged; key_offsets with a context alone.
};

inline std::ostream& operator<<(std::ostream& out, const LayerSpec& s) {
  return out << DataTypeName(s.type) << " with " << DataTypeName(s.weight_type) << " B" << s.batch << " T" << s.queries
             << " S" << s.keys << " D" << s.embed << " H" << s.heads << " K" << s.kv_heads << " E" << s.head_dim
             << " norms " << static_cast<int>(s.query_norm) << static_cast<int>(s.key_norm) << " kind "
             << static_cast<int>(s.kind) << (s.adds_one ? " adds one" : "") << (s.norm_bias ? " bias" : "")
             << " rotary " << s.rotary_dim << (s.interleaved ? " interleaved" : "") << " times " << s.rotary_factor
             << (s.norms_after_rotary ? " before norms" : "") << " from " << s.position_offset;
}

// Owns everything an AttendProblem views. Not copyable.
struct LayerCase {
  explicit LayerCase(const LayerSpec& s)
      : spec(s),
        embeddings(Random(s.batch * s.queries * s.embed, 1, s.type)),
        context(Random(s.context ? s.batch * s.keys * s.embed : 0, 1, s.type)),
        query(Weight(s.heads * s.head_dim)),
        key(Weight(s.kv_heads * s.head_dim)),
        value(Weight(s.kv_heads * s.value_dim)) {
    layer.num_heads = s.heads, layer.num_kv_heads = s.kv_heads;
    layer.query = Linear(query, s.heads * s.head_dim);
    layer.key = Linear(key, s.kv_heads * s.head_dim);
    layer.value = Linear(value, s.kv_heads * s.value_dim);
    layer.query_norm = Norm(s.query_norm, s.heads, query_norm);
    layer.key_norm = Norm(s.key_norm, s.kv_heads, key_norm);
    // From integers and divisions, to be the same everywhere: 1, 1/4, 1/9, ...
    for (std::int64_t i = 1; i <= s.rotary_dim / 2; ++i) frequencies.push_back(1.0 / static_cast<double>(i * i));
    layer.rotary = {frequencies, s.interleaved, s.rotary_factor};
    layer.norms_after_rotary = s.norms_after_rotary;
  }
  LayerCase(const LayerCase&) = delete;
  LayerCase& operator=(const LayerCase&) = delete;

  AttendProblem::Spec ProblemSpec() const {
    AttendProblem::Spec problem;
    problem.embeddings = {embeddings.bytes.data(), spec.batch, spec.queries, spec.embed, spec.type};
    if (spec.context) problem.context = {context.bytes.data(), spec.batch, spec.keys, spec.embed, spec.type};
    problem.layer = layer;
    problem.position_offset = spec.position_offset;
    problem.position_offsets = spec.position_offsets;
    problem.options.causal = spec.causal;
    problem.options.valid_lengths = spec.valid_lengths;
    problem.options.query_lengths = spec.query_lengths;
    problem.options.cumulative_query_lengths = spec.query_offsets;
    problem.options.cumulative_key_lengths = spec.key_offsets;
    return problem;
  }
  AttendProblem Problem() const {
    absl::StatusOr<AttendProblem> created = AttendProblem::Create(ProblemSpec());
    if (!created.ok()) ADD_FAILURE() << created.status().ToString() << " for " << spec;
    return *std::move(created);
  }

  LayerSpec spec;

 private:
  QuickRandom random_{13};

 public:
  TypedTensor embeddings, context, query, key, value;
  std::vector<float> query_norm, key_norm;  // Weights, then biases.
  std::vector<double> frequencies;
  LayerView layer;

 private:
  TypedTensor Random(std::int64_t size, float scale, DataType type) {
    std::vector<float> numbers(static_cast<std::size_t>(size));
    random_.Fill(numbers, scale);
    return TypedTensor::From(numbers, type);
  }
  // Not scaled by a root, which would be no better.
  TypedTensor Weight(std::int64_t out) {
    return Random(out * spec.embed, 4.0f / static_cast<float>(spec.embed), spec.weight_type);
  }
  LinearView Linear(const TypedTensor& weight, std::int64_t out) const {
    return {weight.bytes.data(), nullptr, out, spec.embed, spec.weight_type};
  }
  // Weights within 1/2 of what leaves numbers as they are. A large epsilon, so that a head of little variation does not
  // magnify the rounding of its projection more than tenfold.
  NormView Norm(NormOver over, std::int64_t heads, std::vector<float>& numbers) {
    if (over == NormOver::kNothing) return {};
    const std::int64_t size = over == NormOver::kHead ? spec.head_dim : heads * spec.head_dim;
    numbers.resize(static_cast<std::size_t>(2 * size));
    random_.Fill(numbers, 0.5f);
    for (std::int64_t i = 0; i < size && !spec.adds_one; ++i) numbers[static_cast<std::size_t>(i)] += 1;
    return {numbers.data(), spec.norm_bias ? numbers.data() + size : nullptr, size, spec.kind, 0.01f, spec.adds_one};
  }
};

struct LayerResult {
  explicit LayerResult(const AttendProblem& p)
      : output(Tensor(p, p.query_length() * p.output_dim())),
        query(Tensor(p, p.num_heads() * p.query_length() * p.head_dim())),
        key(Tensor(p, p.num_kv_heads() * p.key_length() * p.head_dim())),
        value(Tensor(p, p.num_kv_heads() * p.key_length() * p.value_dim())) {
    outputs.output = output.bytes.data();
    outputs.query = query.bytes.data();
    outputs.key = key.bytes.data();
    outputs.value = value.bytes.data();
  }
  LayerResult(const LayerResult&) = delete;
  LayerResult& operator=(const LayerResult&) = delete;

  friend bool operator==(const LayerResult& a, const LayerResult& b) {
    return a.output == b.output && a.query == b.query && a.key == b.key && a.value == b.value;
  }

  TypedTensor output, query, key, value;
  AttendOutputs outputs;

 private:
  static TypedTensor Tensor(const AttendProblem& p, std::int64_t size) {
    return {p.embeddings().type, static_cast<std::size_t>(p.batch() * size)};
  }
};

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_LAYER_CASE_H_
