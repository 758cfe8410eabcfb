// Attention in float64 with Eigen, independent of the kernels' code. Tests and `attend-verify` compare kernels with it.
//
// Single-threaded; may be called concurrently.
#ifndef ATTEND_CORE_REFERENCE_REFERENCE_H_
#define ATTEND_CORE_REFERENCE_REFERENCE_H_

#include <vector>

#include "core/layer/attend_problem.h"
#include "core/problem/sdpa_problem.h"

namespace attend {

// Every result, dense and row-major in float64; shapes as in SdpaOutputs.
struct ReferenceResult {
  std::vector<double> output;             // Sdpa: [B, H, T, V]. Attend: [B, T, D_out].
  std::vector<double> attention_weights;  // [B, H, T, S]
  std::vector<double> averaged_weights;   // [B, T, S]
  std::vector<double> scores;             // [B, H, T, S]
  std::vector<double> log_sum_exp;        // [B, H, T]
  std::vector<double> query;              // Attend only: [B, H, T, E]
  std::vector<double> key;                // Attend only: [B, K, S, E]
  std::vector<double> value;              // Attend only: [B, K, S, V]
};

ReferenceResult ReferenceSdpa(const SdpaProblem& problem);
ReferenceResult ReferenceAttend(const AttendProblem& problem);

}  // namespace attend

#endif  // ATTEND_CORE_REFERENCE_REFERENCE_H_
