#include "tests/fuzz/sdpa_results.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <utility>

#include "tests/support/typed_tensor.h"

namespace attend::testing {
namespace {

std::size_t Rows(const SdpaProblem& p, std::int64_t heads) {
  return static_cast<std::size_t>(p.batch() * heads * p.query_length());
}

bool SameBits(double a, double b) {
  return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b) || (std::isnan(a) && std::isnan(b));
}

}  // namespace

Results Compute(const SdpaProblem& problem, InstructionSet set, const TopChoice& top, FastKernels fast) {
  const std::int64_t batch = problem.batch(), heads = problem.num_heads();
  const std::int64_t queries = problem.query_length(), columns = problem.score_columns(), dim = problem.value_dim();
  const DataType arithmetic = problem.is_double() ? DataType::kFloat64 : DataType::kFloat32;
  const std::int64_t top_heads = top.per_head ? heads : 1;
  const auto tensor = [&](DataType type, std::int64_t own_heads, std::int64_t width) {
    return TypedTensor::From(std::vector<double>(Rows(problem, own_heads) * static_cast<std::size_t>(width), 123),
                             type);
  };
  TypedTensor output = tensor(problem.query().type, heads, dim), weights = tensor(arithmetic, heads, columns);
  TypedTensor averaged = tensor(arithmetic, 1, columns), scores = tensor(arithmetic, heads, columns);
  TypedTensor top_weights = tensor(arithmetic, top_heads, top.k);
  std::vector<float> log_sum_exp(Rows(problem, heads), 123);
  std::vector<std::int32_t> indices(Rows(problem, top_heads) * static_cast<std::size_t>(top.k), 123);
  SdpaOutputs outputs{output.MutableView(batch, heads, queries, dim),
                      weights.MutableView(batch, heads, queries, columns),
                      averaged.MutableView(batch, 1, queries, columns),
                      scores.MutableView(batch, heads, queries, columns),
                      {},
                      log_sum_exp.data()};
  if (top.k > 0) {
    outputs.top_weights = {top_weights.MutableView(batch, top_heads, queries, top.k),
                           SplitHeads(indices.data(), batch, top_heads, queries, top.k)};
  }
  const absl::Status status = ComputeSdpa(problem, outputs, {.instruction_set = set, .fast_kernels = fast});
  FUZZ_CHECK(status.ok(), "%s", status.ToString());
  return {output.Doubles(),
          weights.Doubles(),
          averaged.Doubles(),
          scores.Doubles(),
          {log_sum_exp.begin(), log_sum_exp.end()},
          top_weights.Doubles(),
          std::move(indices)};
}

void CheckSameBits(const char* what, const double* a, const double* b, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) {
    FUZZ_CHECK(SameBits(a[i], b[i]), "%s: [%d] is %.17g and %.17g", what, i, a[i], b[i]);
  }
}

void CheckOutputAlone(const SdpaProblem& problem, InstructionSet set, const std::vector<double>& expected,
                      FastKernels fast) {
  TypedTensor output(problem.query().type, expected.size());
  const SdpaOutputs outputs{
      .output = output.MutableView(problem.batch(), problem.num_heads(), problem.query_length(), problem.value_dim())};
  FUZZ_CHECK(ComputeSdpa(problem, outputs, {.instruction_set = set, .fast_kernels = fast}).ok(), "output alone");
  CheckSameBits("output alone and with other outputs", output.Doubles().data(), expected.data(), expected.size());
}

void CheckSameBits(const char* what, const Results& a, const Results& b) {
  const std::pair<const char*, std::vector<double> Results::*> parts[] = {
      {"output", &Results::output},           {"attention_weights", &Results::attention_weights},
      {"scores", &Results::scores},           {"averaged_weights", &Results::averaged_weights},
      {"log_sum_exp", &Results::log_sum_exp}, {"top_weights", &Results::top_weights}};
  for (const auto& [name, part] : parts) {
    FUZZ_CHECK((a.*part).size() == (b.*part).size(), "sizes of %s %s", name, what);
    CheckSameBits(absl::StrFormat("%s %s", name, what).c_str(), (a.*part).data(), (b.*part).data(), (a.*part).size());
  }
  FUZZ_CHECK(a.top_indices == b.top_indices, "top_indices %s", what);
}

void CheckTop(const SdpaProblem& problem, const Results& results, const TopChoice& top) {
  if (top.k == 0) return;
  const std::vector<double>& maps = top.per_head ? results.attention_weights : results.averaged_weights;
  const auto columns = static_cast<std::size_t>(problem.score_columns()), k = static_cast<std::size_t>(top.k);
  std::vector<std::int32_t> order(columns);
  for (std::size_t row = 0; row < maps.size() / columns; ++row) {
    const double* w = &maps[row * columns];
    std::iota(order.begin(), order.end(), 0);
    const auto rank = [w](std::int32_t j) { return std::isnan(w[j]) ? INFINITY : w[j]; };
    std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return rank(a) > rank(b); });
    for (std::size_t i = 0; i < k; ++i) {
      const bool listed = i < columns && rank(order[i]) > 0;
      const double weight = listed ? w[order[i]] : 0;
      FUZZ_CHECK(results.top_indices[row * k + i] == (listed ? order[i] : -1), "top key %d of row %d", i, row);
      FUZZ_CHECK(SameBits(results.top_weights[row * k + i], weight), "top weight %d of row %d", i, row);
    }
  }
}

}  // namespace attend::testing
