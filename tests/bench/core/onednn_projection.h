// y = x . weight^T by oneDNN, to compare with. Built from onednn_projection.cc where oneDNN is installed, otherwise
// from onednn_absent.cc. attend itself never links it.
#ifndef ATTEND_TESTS_BENCH_CORE_ONEDNN_PROJECTION_H_
#define ATTEND_TESTS_BENCH_CORE_ONEDNN_PROJECTION_H_

#include <functional>
#include <string>
#include <vector>

#include "core/layer/projection.h"

namespace attend::bench {

// One of the ways that oneDNN offers, ready to run.
struct OnednnWay {
  std::string name;  // `oneDNN 2.6.3 matmul brg:avx512_core, weights as they are`
  bool packed_before =
      false;                  // It wants weights in a layout of its own, and gets them so: `run` does not reorder them.
  std::function<void()> run;  // Computes on the calling thread alone.
};

// All ways to compute `projection` without bias, except those for which oneDNN has only its reference implementation.
// Empty without oneDNN. The projection's memory stays with the caller.
std::vector<OnednnWay> OnednnWays(const Projection<float>& projection);

}  // namespace attend::bench

#endif  // ATTEND_TESTS_BENCH_CORE_ONEDNN_PROJECTION_H_
