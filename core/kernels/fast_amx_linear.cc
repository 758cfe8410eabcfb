// PRECISION_FAST of affine maps, for processors with tile registers for BFLOAT16 (AMX-BF16): as fast_linear.cc, with
// the sums of tile-inl.h over blocks of 32 input features.
#include <cstdint>

#include "core/kernels/fast_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/fast_amx_linear.cc"
#include "core/kernels/targets.h"
#include "hwy/foreach_target.h"
#if HWY_TARGET == HWY_AVX3
// After foreach_target.h.
#include "core/kernels/linear-inl.h"
#include "core/kernels/tile-inl.h"

HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16")
namespace attend {
namespace HWY_NAMESPACE {
namespace {

static_assert(kRowBlock % kTileSide == 0);
constexpr int64_t kSlabBlocks = kSlab / kTileSide;  // A slab is so many blocks of 32 input features.

// The sums of a block of rows, and where weights come unpacked a panel of them packed.
int64_t ScratchSize(const LinearTask& task) {
  return (kRowBlock + (task.panels == nullptr ? NumPairs(task.in_features) : 0)) * kWidth;
}

void Pack(const LinearTask& task, void* panels) {
  ForEachPanel(task, nullptr, [&](const LinearPanel& panel) {
    PackPairs<BFloat16>(panel, static_cast<std::uint32_t*>(panels) + NumPairs(task.in_features) * panel.first);
  });
}

// Some rows of tokens and a panel's packed weights.
struct RowsAndWeights {
  const LinearPanel& panel;
  const std::uint32_t* weights;
  int64_t row;
  int64_t num_rows;

  const BFloat16* Tokens(int64_t r, int64_t feature) const {
    return static_cast<const BFloat16*>(panel.task.x) + (row + r) * panel.task.x_stride + feature;
  }
};

// The sums of kRows rows by float multiply-adds: what tiles do of one row or two takes as long as of 16. REQUIRES:
// SubnormalsAreZero.
template <int kRows, int kVectors>
HWY_NOINLINE void ComputeFewRows(const RowsAndWeights& of) {
  const FloatTag d;
  const int64_t num_pairs = NumPairs(of.panel.task.in_features);
  const std::uint32_t* weights = of.weights;
  Vec sum[kRows * kVectors];
  for (Vec& s : sum) s = hn::Zero(d);
  for (int64_t first = 0; first < num_pairs; first += kTileSide) {
    Vec even[kRows * kVectors], odd[kRows * kVectors];
    for (int i = 0; i < kRows * kVectors; ++i) even[i] = odd[i] = hn::Zero(d);
    const int64_t end = HWY_MIN(first + kTileSide, num_pairs);
    for (int64_t s = first; s < end; ++s, weights += kVectors * kLanes) {
      HWY_UNROLL(8)
      for (int i = 0; i < kRows * kVectors; ++i) {
        const Pairs token = BroadcastPair(of.Tokens(i / kVectors, 2 * s));
        const Pairs pairs = _mm512_loadu_si512(weights + i % kVectors * kLanes);
        even[i] = hn::MulAdd(FirstOf(token), FirstOf(pairs), even[i]);
        odd[i] = hn::MulAdd(SecondOf(token), SecondOf(pairs), odd[i]);
      }
    }
    // What fills a block up makes +0 of -0.
    const Vec filled = hn::Zero(d);
    for (int i = 0; i < kRows * kVectors; ++i) {
      if (end < first + kTileSide) even[i] = hn::Add(even[i], filled), odd[i] = hn::Add(odd[i], filled);
      sum[i] = hn::Add(sum[i], hn::Add(even[i], odd[i]));
    }
  }
  for (int i = 0; i < kRows * kVectors; ++i) hn::Store(sum[i], d, of.panel.sums + i * kLanes);
}

template <int kRows>
void ComputeFewRowsOf(const RowsAndWeights& of) {
  switch (of.panel.vectors) {
    case 3: return ComputeFewRows<kRows, 3>(of);
    case 2: return ComputeFewRows<kRows, 2>(of);
    default: return ComputeFewRows<kRows, 1>(of);
  }
}

void ComputeFewRows(const RowsAndWeights& of) {
  {
    const SubnormalsAreZero mode;
    of.num_rows == 1 ? ComputeFewRowsOf<1>(of) : ComputeFewRowsOf<2>(of);
  }
  WriteRows(of.panel, of.row, of.num_rows);
}

// Adds `blocks` blocks from `feature` on to rows from `r` on, which are whole tiles.
void AddBlocks(const RowsAndWeights& of, int64_t r, int64_t tiles, LeftTiles tokens, PairRows weights, int64_t blocks) {
  DotTiles<From::kSums>(tiles, of.panel.vectors, tokens, weights, blocks,
                        {of.panel.sums + r * of.panel.stride(), of.panel.stride()});
}

// Features [feature, feature + 32 * blocks) of all rows; the last rows are copied to a whole tile if they are not one.
void AddWholeBlocks(const RowsAndWeights& of, int64_t feature, int64_t blocks) {
  HWY_ALIGN BFloat16 copy[kTileSide * kSlabBlocks * kTileNumbers];
  const PairRows weights{of.weights + feature / 2 * of.panel.stride(), of.panel.stride()};
  const int64_t whole = of.num_rows / kTileSide;
  const int64_t x_bytes = 2 * of.panel.task.x_stride;
  AddBlocks(of, 0, whole, {reinterpret_cast<const char*>(of.Tokens(0, feature)), x_bytes, kTileBytes}, weights, blocks);
  if (whole * kTileSide == of.num_rows) return;
  const auto bytes = static_cast<size_t>(blocks * kTileBytes);
  std::memset(copy, 0, bytes * kTileSide);
  for (int64_t r = whole * kTileSide; r < of.num_rows; ++r) {
    std::memcpy(copy + (r % kTileSide) * blocks * kTileNumbers, of.Tokens(r, feature), bytes);
  }
  const LeftTiles tokens{reinterpret_cast<const char*>(copy), blocks * kTileBytes, kTileBytes};
  AddBlocks(of, whole * kTileSide, 1, tokens, weights, blocks);
}

// Features from `feature` on, which are less than a block: zeros fill tokens and weights up.
void AddLastBlock(const RowsAndWeights& of, int64_t feature) {
  HWY_ALIGN BFloat16 tokens[kRowBlock * kTileNumbers] = {};
  HWY_ALIGN std::uint32_t weights[kTileSide * kWidth] = {};
  const int64_t features = of.panel.task.in_features - feature, stride = of.panel.stride();
  for (int64_t r = 0; r < of.num_rows; ++r) {
    std::memcpy(tokens + r * kTileNumbers, of.Tokens(r, feature), static_cast<size_t>(features) * sizeof(BFloat16));
  }
  std::memcpy(weights, of.weights + feature / 2 * stride,
              static_cast<size_t>(features / 2 * stride) * sizeof(*weights));
  const LeftTiles left{reinterpret_cast<const char*>(tokens), kTileBytes, 0};
  AddBlocks(of, 0, CeilDiv(of.num_rows, kTileSide), left, {weights, stride}, 1);
}

void ComputeRows(const RowsAndWeights& of) {
  if (of.num_rows <= 2) return ComputeFewRows(of);
  const int64_t blocks = of.panel.task.in_features / kTileNumbers;
  std::memset(of.panel.sums, 0, static_cast<size_t>(kRowBlock * of.panel.stride()) * sizeof(float));
  for (int64_t block = 0; block < blocks; block += kSlabBlocks) {
    AddWholeBlocks(of, block * kTileNumbers, HWY_MIN(kSlabBlocks, blocks - block));
  }
  if (blocks * kTileNumbers < of.panel.task.in_features) AddLastBlock(of, blocks * kTileNumbers);
  WriteRows(of.panel, of.row, of.num_rows);
}

void Linear(const LinearTask& task, float* scratch) {
  const TilesInUse tiles(WholeTiles());
  auto* own = reinterpret_cast<std::uint32_t*>(scratch + kRowBlock * kWidth);
  ForEachPanel(task, scratch, [&](const LinearPanel& panel) {
    if (task.panels == nullptr) PackPairs<BFloat16>(panel, own);
    const auto* packed = task.panels == nullptr ? own : static_cast<const std::uint32_t*>(panel.Packed());
    for (int64_t row = 0; row < task.num_rows; row += kRowBlock) {
      ComputeRows({panel, packed, row, HWY_MIN(kRowBlock, task.num_rows - row)});
    }
  });
}

}  // namespace

const LinearKernels& FastAmxLinearFunctions() {
  static constexpr LinearKernels kKernels = {kWidth, PackedBytes, Pack, ScratchSize, Linear};
  return kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_POP_ATTRIBUTES
#endif  // HWY_TARGET == HWY_AVX3

#if HWY_ONCE
namespace attend {
const LinearKernels* FastAmxLinearKernels() { return ATTEND_AVX512_OR_NULL(FastAmxLinearFunctions); }
}  // namespace attend
#endif
