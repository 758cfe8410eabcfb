// Problems of attention over embeddings made from a handful of numbers, with everything they view, and their results.
#ifndef ATTEND_TESTS_SUPPORT_ATTEND_CASE_H_
#define ATTEND_TESTS_SUPPORT_ATTEND_CASE_H_

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/layer/attend_problem.h"
#include "core/layer/compute_attend.h"
#include "tests/support/sdpa_case.h"

namespace attend::testing {

struct AttendSpec {
  std::int64_t batch = 1, queries = 5, keys = 5, embed = 64, context_embed = 64;
  std::int64_t heads = 1, kv_heads = 1, head_dim = 64, value_dim = 64, output_dim = 0;  // 0: no output projection.
  bool context = false, layer = true, biases = true;
  CausalMode causal = CausalMode::kNone;
};

// Owns everything an AttendProblem views.
struct AttendCase {
  explicit AttendCase(const AttendSpec& s) : spec(s) {
    embeddings = Random(s.batch * s.queries * s.embed, 1);
    if (s.context) context = Random(s.batch * s.keys * s.context_embed, 1);
    const std::int64_t memory_embed = s.context ? s.context_embed : s.embed;
    Linear(0, s.heads * s.head_dim, s.embed);
    Linear(1, s.kv_heads * s.head_dim, memory_embed);
    Linear(2, s.kv_heads * s.value_dim, memory_embed);
    if (s.output_dim > 0) Linear(3, s.output_dim, s.heads * s.value_dim);
  }
  AttendCase(const AttendCase&) = delete;
  AttendCase& operator=(const AttendCase&) = delete;

  AttendProblem Problem() const {
    AttendProblem::Spec problem;
    problem.embeddings = {embeddings.data(), spec.batch, spec.queries, spec.embed};
    if (spec.context) problem.context = {context.data(), spec.batch, spec.keys, spec.context_embed};
    if (spec.layer) problem.layer = LayerView{linear[0], linear[1], linear[2], linear[3], spec.heads, spec.kv_heads};
    problem.options.causal = spec.causal;
    absl::StatusOr<AttendProblem> created = AttendProblem::Create(problem);
    if (!created.ok()) ADD_FAILURE() << created.status().ToString();
    return *std::move(created);
  }

  AttendSpec spec;
  std::vector<float> embeddings, context, weights[4], biases[4];
  LinearView linear[4];

 private:
  std::vector<float> Random(std::int64_t size, float scale) {
    std::vector<float> numbers(static_cast<std::size_t>(size));
    random_.Fill(numbers, scale);
    return numbers;
  }
  void Linear(int i, std::int64_t out, std::int64_t in) {
    weights[i] = Random(out * in, 2 / std::sqrt(static_cast<float>(in)));
    if (spec.biases) biases[i] = Random(out, 0.5f);
    linear[i] = {weights[i].data(), spec.biases ? biases[i].data() : nullptr, out, in};
  }
  QuickRandom random_{7};
};

struct AttendResult {
  explicit AttendResult(const AttendProblem& p)
      : output(Size(p.batch(), p.query_length(), p.output_dim())),
        query(Size(p.batch() * p.num_heads(), p.query_length(), p.head_dim())),
        key(Size(p.batch() * p.num_kv_heads(), p.key_length(), p.head_dim())),
        value(Size(p.batch() * p.num_kv_heads(), p.key_length(), p.value_dim())),
        weights(Size(p.batch() * p.num_heads(), p.query_length(), p.key_length())),
        scores(weights.size()),
        averaged(Size(p.batch(), p.query_length(), p.key_length())),
        log_sum_exp(Size(p.batch(), p.num_heads(), p.query_length())) {
    const std::int64_t b = p.batch(), h = p.num_heads(), t = p.query_length(), s = p.key_length();
    outputs = {output.data(),
               query.data(),
               key.data(),
               value.data(),
               SplitHeads(weights.data(), b, h, t, s),
               SplitHeads(averaged.data(), b, 1, t, s),
               SplitHeads(scores.data(), b, h, t, s)};
    outputs.log_sum_exp = log_sum_exp.data();
  }
  AttendResult(const AttendResult&) = delete;
  AttendResult& operator=(const AttendResult&) = delete;

  std::vector<float> output, query, key, value, weights, scores, averaged, log_sum_exp;
  AttendOutputs outputs;

 private:
  static std::size_t Size(std::int64_t a, std::int64_t b, std::int64_t c) {
    return static_cast<std::size_t>(a * b * c);
  }
};

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_ATTEND_CASE_H_
