#include "core/compute/merge.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"

namespace attend {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

absl::Status ValidateSize(const std::string& field, std::size_t actual, std::size_t expected) {
  if (actual == expected) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(field, " has ", actual, " elements, but the merged result has ", expected,
                                          "; all parts must have the same rows and value size"));
}

absl::Status Validate(absl::Span<const PartialAttention> parts, const MergedAttention& merged) {
  const std::size_t rows = merged.log_sum_exp.size();
  if (rows == 0 || merged.output.empty() || merged.output.size() % rows != 0) {
    return InvalidField("merged.output", absl::StrCat("merged.output has ", merged.output.size(),
                                                      " elements; it must have a positive multiple of the ", rows,
                                                      " rows of merged.log_sum_exp"));
  }
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::string part = absl::StrCat("parts[", i, "]");
    absl::Status status = ValidateSize(part + ".output", parts[i].output.size(), merged.output.size());
    status.Update(ValidateSize(part + ".log_sum_exp", parts[i].log_sum_exp.size(), rows));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// exp(log_sum_exp - max), also where both are infinite.
double Share(double log_sum_exp, double max) { return log_sum_exp == max ? 1 : std::exp(log_sum_exp - max); }

// The softmax denominator of one row over all parts, as exp(max) * sum; sum is 0 when no part saw a key.
struct Denominator {
  double max = -kInfinity;
  double sum = 0;
};

Denominator MergeDenominators(absl::Span<const PartialAttention> parts, std::size_t row) {
  Denominator merged;
  for (const PartialAttention& part : parts) merged.max = std::max(merged.max, double{part.log_sum_exp[row]});
  for (const PartialAttention& part : parts) {
    if (part.log_sum_exp[row] != -kInfinity) merged.sum += Share(part.log_sum_exp[row], merged.max);
  }
  // One part beyond float32's range has all the weight; of two nobody knows which has how much.
  if (merged.max == kInfinity && merged.sum > 1) merged.sum = std::numeric_limits<double>::quiet_NaN();
  return merged;
}

void MergeRow(absl::Span<const PartialAttention> parts, std::size_t row, const MergedAttention& merged,
              std::vector<double>& sum) {
  const Denominator denominator = MergeDenominators(parts, row);
  if (denominator.sum == 0 && merged.keeps_unseen) return;
  std::fill(sum.begin(), sum.end(), 0.0);
  for (const PartialAttention& part : parts) {
    if (part.log_sum_exp[row] == -kInfinity) continue;
    const double weight = Share(part.log_sum_exp[row], denominator.max) / denominator.sum;
    const float* output = &part.output[row * sum.size()];
    for (std::size_t v = 0; v < sum.size(); ++v) sum[v] += weight * output[v];
  }
  std::transform(sum.begin(), sum.end(), merged.output.begin() + static_cast<std::ptrdiff_t>(row * sum.size()),
                 [](double x) { return static_cast<float>(x); });
  merged.log_sum_exp[row] = static_cast<float>(denominator.max + std::log(denominator.sum));
}

}  // namespace

absl::Status MergePartialAttention(absl::Span<const PartialAttention> parts, const MergedAttention& merged) {
  if (absl::Status status = Validate(parts, merged); !status.ok()) return status;
  const std::size_t rows = merged.log_sum_exp.size();
  std::vector<double> sum(merged.output.size() / rows);
  for (std::size_t row = 0; row < rows; ++row) MergeRow(parts, row, merged, sum);
  return absl::OkStatus();
}

}  // namespace attend
