// One query, or those of a few heads that share keys, against a long context. Keys and values are read once and are
// more than the caches hold, so reading them is all there is: the figure is the share of the bandwidth that the same
// threads read other memory of the same size with.
#include <string>
#include <utility>

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
  explicit Decode(const Shape& shape) : sdpa_(shape), other_(Numbers(sdpa_.KeyValueBytes() / 4)) {}

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

void RegisterCase(const std::string& name, const Shape& shape) {
  Register("core/decode/" + name + "/bandwidth_fraction", [shape] { return Decode(shape).OnThisThread(); });
  Register("core/decode/" + name + "/2t/bandwidth_fraction", [shape] { return Decode(shape).OnThreads(2); });
}

// How much longer the layout [B, T, H, E] takes than [B, H, T, E].
double LayoutQuotient(const Shape& shape) {
  Shape merged = shape;
  merged.merged = true;
  const Sdpa split_sdpa(shape), merged_sdpa(merged);
  return MedianQuotient(RateOf(
                            ThreadClock, [&] { split_sdpa.Compute(); }, 1),
                        RateOf(
                            ThreadClock, [&] { merged_sdpa.Compute(); }, 1));
}

// Where keys and values are in caches, and the kernel is what takes time.
double Microseconds(const Shape& shape) {
  const Sdpa sdpa(shape);
  return 1e6 / Median(RateOf(
                   ThreadClock, [&] { sdpa.Compute(); }, 1));
}

void RegisterInt8Cases() {
  const auto over_float32 = [](const std::string& name, const Shape& shape) {
    Register("core/decode/int8/" + name + "/over_f32", [shape] { return Figure{Int8OverFloat32(shape)}; });
  };
  over_float32("S65536/D128", {.queries = 1, .keys = 65536, .dim = 128});
  over_float32("gqa4/S32768/H32/D128", {.heads = 32, .kv_heads = 8, .queries = 1, .keys = 32768, .dim = 128});
  over_float32("S512/H8/D128", {.heads = 8, .kv_heads = 8, .queries = 1, .keys = 512, .dim = 128});
  const Shape merged{.heads = 8, .kv_heads = 8, .queries = 1, .keys = 16384, .dim = 128, .merged = true};
  over_float32("S16384/H8/D128/merged", merged);
}

}  // namespace

void RegisterDecodeCases() {
  for (const auto& [name, type] :
       {std::pair("f32", DataType::kFloat32), {"bf16", DataType::kBFloat16}, {"f16", DataType::kFloat16}}) {
    const std::string prefix(name);
    RegisterCase(prefix + "/S65536/D128", {.queries = 1, .keys = 65536, .dim = 128, .type = type});
    const Shape shared{.heads = 32, .kv_heads = 8, .queries = 1, .keys = 32768, .dim = 128, .type = type};
    RegisterCase(prefix + "/gqa4/S32768/H32/D128", shared);
    const Shape heads{.heads = 8, .kv_heads = 8, .queries = 1, .keys = 16384, .dim = 128, .type = type};
    Register("core/decode/" + prefix + "/S16384/H8/D128/merged_over_split",
             [heads] { return Figure{LayoutQuotient(heads)}; });
    const Shape in_caches{.heads = 8, .kv_heads = 8, .queries = 1, .keys = 512, .dim = 128, .type = type};
    Register("core/decode/" + prefix + "/S512/H8/D128/attend_us",
             [in_caches] { return Figure{Microseconds(in_caches)}; });
  }
  RegisterInt8Cases();
}

}  // namespace attend::bench
