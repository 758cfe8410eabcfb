// Everything that one computation of scaled dot-product attention gives, and how results are compared, for the fuzzer.
#ifndef ATTEND_TESTS_FUZZ_SDPA_RESULTS_H_
#define ATTEND_TESTS_FUZZ_SDPA_RESULTS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/compute/compute_sdpa.h"
#include "core/problem/sdpa_problem.h"

namespace attend::testing {

// What a check throws; caught where it is known what was being computed.
struct Failure {
  std::string message;
};

#define FUZZ_CHECK(condition, ...)                                                                                  \
  do {                                                                                                              \
    if (!(condition)) throw Failure{absl::StrFormat("%s:%d: ", __FILE__, __LINE__) + absl::StrFormat(__VA_ARGS__)}; \
  } while (false)

// Which top weights are asked for; none if k is 0.
struct TopChoice {
  std::int64_t k = 0;
  bool per_head = false;
};

// Numbers of every type, widened exactly, so that they are the same where their bits are.
struct Results {
  std::vector<double> output, attention_weights, averaged_weights, scores, log_sum_exp, top_weights;
  std::vector<std::int32_t> top_indices;
};

// Every output, computed into heap blocks of exactly their sizes.
Results Compute(const SdpaProblem& problem, InstructionSet set, const TopChoice& top,
                FastKernels fast = FastKernels::kNone);

// The output alone takes other paths than all outputs together; its bits must not show it.
void CheckOutputAlone(const SdpaProblem& problem, InstructionSet set, const std::vector<double>& expected,
                      FastKernels fast = FastKernels::kNone);

// Top weights are the first of whole rows sorted.
void CheckTop(const SdpaProblem& problem, const Results& results, const TopChoice& top);

// NaN is one number.
void CheckSameBits(const char* what, const double* a, const double* b, std::size_t size);
void CheckSameBits(const char* what, const Results& a, const Results& b);

}  // namespace attend::testing

#endif  // ATTEND_TESTS_FUZZ_SDPA_RESULTS_H_
