// How long computing goes on after its cancellation flag is raised: the longest of many tries, in time on a core, so
// that it is not other work on the machine that is measured.
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <functional>
#include <string>
#include <thread>

#include "core/layer/projection.h"
#include "tests/bench/core/cases.h"
#include "tests/bench/core/harness.h"
#include "tests/bench/core/sdpa.h"

namespace attend::bench {
namespace {

constexpr int kTries = 40;

// Computes until the flag that it is given is raised.
using Work = std::function<void(const std::atomic<bool>*)>;

double SecondsOf(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

double MillisecondsToStop(const Work& work, std::chrono::microseconds after) {
  std::atomic<bool> cancelled{false};
  double returned = 0;
  std::thread worker([&] {
    work(&cancelled);
    returned = ThreadClock();
  });
  clockid_t clock;
  pthread_getcpuclockid(worker.native_handle(), &clock);
  std::this_thread::sleep_for(after);
  const double raised = SecondsOf(clock);
  cancelled = true;
  worker.join();
  return std::max(0.0, (returned - raised) * 1e3);
}

Figure Longest(const Work& work) {
  double longest = 0;
  for (int i = 0; i < kTries; ++i) {
    longest = std::max(longest, MillisecondsToStop(work, std::chrono::microseconds(3000 + 97 * i)));
  }
  return {longest};
}

void RegisterSdpa(const std::string& name, const Shape& shape) {
  Register("core/cancel/" + name + "/longest_ms", [shape] {
    const Sdpa sdpa(shape);
    return Longest([&sdpa](const std::atomic<bool>* cancelled) { sdpa.ComputeUntil(cancelled); });
  });
}

// A wide projection, of which one tile is the longest stretch without a look.
Figure Projecting() {
  constexpr std::int64_t kTokens = 2048, kDim = 4096;
  const AlignedBuffer<float> x = Numbers(kTokens * kDim), weight = Numbers(kDim * kDim), y(kTokens * kDim);
  const Projection<float> projection{x.data(), kTokens, {weight.data(), nullptr, kDim, kDim}, y.data()};
  return Longest([&](const std::atomic<bool>* cancelled) {
    WorkspacePool pool;
    Project({.cancelled = cancelled}, &projection, 1, pool);
  });
}

}  // namespace

void RegisterCancelCases() {
  RegisterSdpa("sdpa/T8192/D128", {.heads = 4, .kv_heads = 4, .queries = 8192, .keys = 8192, .dim = 128});
  RegisterSdpa("sdpa/weights/T4096/D64",
               {.heads = 4, .kv_heads = 4, .queries = 4096, .keys = 4096, .dim = 64, .weights = true});
  RegisterSdpa("sdpa/f64/T2048/D64",
               {.heads = 4, .kv_heads = 4, .queries = 2048, .keys = 2048, .dim = 64, .type = DataType::kFloat64});
  Register("core/cancel/projection/T2048/D4096/longest_ms", Projecting);
}

}  // namespace attend::bench
