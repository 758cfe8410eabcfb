// One query against a long context. Keys and values are read once and are more than the caches hold, so reading them is
// all there is: the figure is the share of the bandwidth that the same threads read other memory of the same size with.
#include "tests/bench/core/cases.h"
#include "tests/bench/core/harness.h"
#include "tests/bench/core/machine.h"
#include "tests/bench/core/sdpa.h"

namespace attend::bench {
namespace {

// Floats that a thread reads at a time: 1 MiB, of which the faster thread takes more.
constexpr std::int64_t kPiece = std::int64_t{1} << 18;

class Decode {
 public:
  Decode() : sdpa_({.queries = 1, .keys = 65536, .dim = 128}), other_(Numbers(sdpa_.KeyValueBytes() / 4)) {}

  Figure OnThisThread() const {
    const ReadLoop loop = FastestReadLoop(BestInstructionSet(), other_.data(), other_.size());
    const auto compute = RateOf(
        ThreadClock, [this] { sdpa_.Compute(); }, Bytes());
    const auto read = RateOf(
        ThreadClock, [&] { loop.read(other_.data(), other_.size()); }, Bytes());
    return {MedianQuotient(compute, read), loop.name};
  }

  // Measured on executors as the server has them; dispatching a task is part of both sides.
  Figure OnThreads(int threads) const {
    const ReadLoop loop = FastestReadLoop(BestInstructionSet(), other_.data(), other_.size());
    Executor executor({.num_threads = threads});
    const auto rate = [&](std::function<void()> work) {
      return RateOf(
          WallClock, [&executor, work] { RunOn(executor, work); }, Bytes());
    };
    const auto read_piece = [&](std::int64_t i) { loop.read(other_.data() + i * kPiece, kPiece); };
    const auto compute = rate([&] { sdpa_.Compute(&executor); });
    const auto read = rate([&] { executor.ParallelFor(other_.size() / kPiece, read_piece); });
    return {MedianQuotient(compute, read), loop.name};
  }

 private:
  double Bytes() const { return static_cast<double>(sdpa_.KeyValueBytes()); }

  Sdpa sdpa_;
  AlignedBuffer<float> other_;
};

}  // namespace

void RegisterDecodeCases() {
  Register("core/decode/f32/S65536/D128/bandwidth_fraction", [] { return Decode().OnThisThread(); });
  Register("core/decode/f32/S65536/D128/2t/bandwidth_fraction", [] { return Decode().OnThreads(2); });
}

}  // namespace attend::bench
