#include "tests/verify/merge_reference.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace attend::client {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

// All results of one row: the output's numbers and the logarithm of their weight.
struct RowResult {
  std::vector<double> output;
  double log_sum_exp = kMinusInfinity;
};

RowResult MergeRows(const std::vector<RowResult>& parts) {
  RowResult merged{std::vector<double>(parts.front().output.size())};
  double max = kMinusInfinity;
  for (const RowResult& part : parts) max = std::max(max, part.log_sum_exp);
  double sum = 0;
  for (const RowResult& part : parts) {
    if (part.log_sum_exp == kMinusInfinity) continue;
    const double weight = std::exp(part.log_sum_exp - max);
    sum += weight;
    for (std::size_t v = 0; v < merged.output.size(); ++v) merged.output[v] += weight * part.output[v];
  }
  if (sum == 0) return merged;
  for (double& number : merged.output) number /= sum;
  merged.log_sum_exp = max + std::log(sum);
  return merged;
}

}  // namespace

void MergeReference(const v1::PartialAttention& partials, ReferenceResult* result) {
  const auto* const outputs = reinterpret_cast<const float*>(partials.output().data().data());
  const auto* const log_sum_exps = reinterpret_cast<const float*>(partials.log_sum_exp().data().data());
  const std::size_t rows = result->log_sum_exp.size(), dim = result->output.size() / rows;
  for (std::size_t row = 0; row < rows; ++row) {
    double* const own = result->output.data() + row * dim;
    std::vector<RowResult> parts = {{std::vector<double>(own, own + dim), result->log_sum_exp[row]}};
    for (std::size_t p = 0; p < static_cast<std::size_t>(partials.output().shape(0)); ++p) {
      const float* const output = outputs + (p * rows + row) * dim;
      parts.push_back({std::vector<double>(output, output + dim), log_sum_exps[p * rows + row]});
    }
    const RowResult merged = MergeRows(parts);
    std::copy(merged.output.begin(), merged.output.end(), own);
    result->log_sum_exp[row] = merged.log_sum_exp;
  }
}

}  // namespace attend::client
