// Panels of weights with output features in lanes, how they are packed, and how their sums become rows of outputs.
// Included once per instruction set.
//
// A panel of float weights is [in_features][width]. Weights of 16 bits that are packed once stay so: a panel is [pairs
// of input features][width][2 numbers], for BFLOAT16 side by side in each lane, as the instructions for pairs want them
// and a shift and a mask widen them; for FLOAT16 a vector of first numbers before one of second numbers, as the
// instructions want them that widen. A last input feature without a partner stands beside 0.
#include "core/base/round.h"
#include "core/kernels/multiply-inl.h"

#if defined(ATTEND_CORE_KERNELS_LINEAR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTEND_CORE_KERNELS_LINEAR_INL_H_
#undef ATTEND_CORE_KERNELS_LINEAR_INL_H_
#else
#define ATTEND_CORE_KERNELS_LINEAR_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {
// NOLINTBEGIN(google-build-namespaces,misc-definitions-in-headers): a part of each file that includes it, and its own
// there.
namespace {

constexpr int64_t kWidth = kTileVectors * kLanes;
// Rows whose sums wait in the first-level cache while the input features pass slab by slab.
constexpr int64_t kRowBlock = 6 * kTileRows;
// Rows of a packed slab, input features or pairs of them, which with its rows of sums stays in the first-level cache.
constexpr int64_t kSlab = 128;

inline int64_t NumPairs(int64_t in_features) { return CeilDiv<int64_t>(in_features, 2); }

inline int64_t PackedBytes(DataType type, int64_t in_features, int64_t out_features) {
  const int64_t rows = type == DataType::kFloat32 ? in_features : NumPairs(in_features);
  return rows * RoundUp(out_features, kLanes) * static_cast<int64_t>(sizeof(float));
}

// Output features [first, first + width) of one panel.
struct LinearPanel {
  const LinearTask& task;
  int64_t first;
  int64_t width;
  int64_t vectors;
  float* sums;  // [kRowBlock][vectors * kLanes]

  int64_t stride() const { return vectors * kLanes; }
  // Where the panel lies in what was packed before.
  const void* Packed() const {
    return static_cast<const std::byte*>(task.panels) + PackedBytes(task.weight_type, task.in_features, first);
  }
};

// Panel after panel. Calls use(LinearPanel).
template <typename Use>
HWY_INLINE void ForEachPanel(const LinearTask& task, float* sums, const Use& use) {
  for (int64_t first = 0; first < task.out_features; first += kWidth) {
    const int64_t width = HWY_MIN(kWidth, task.out_features - first);
    use(LinearPanel{task, first, width, CeilDiv(width, kLanes), sums});
  }
}

// Transposed pairs of kLanes output features, as panels have them.
HWY_INLINE void StorePairs(Vec pairs, const BFloat16*, std::uint32_t* to) {
  hn::StoreU(hn::BitCast(Uint32Tag(), pairs), Uint32Tag(), to);
}
HWY_INLINE void StorePairs(Vec pairs, const Float16*, std::uint32_t* to) {
  const Bits bits = hn::BitCast(Uint32Tag(), pairs);
  auto* halves = reinterpret_cast<std::uint16_t*>(to);
  hn::StoreU(Demote(hn::And(bits, SetBits(0xffff))), Uint16Tag(), halves);
  hn::StoreU(Demote(hn::ShiftRight<16>(bits)), Uint16Tag(), halves + kLanes);
}

// Packs a panel of task.weight, which is of type Half and lies at any address.
template <typename Half>
void PackPairs(const LinearPanel& panel, std::uint32_t* to) {
  const LinearTask& task = panel.task;
  const auto* weight = static_cast<const std::byte*>(task.weight);
  // A square of pairs, at least: what lies behind the last pair is transposed too.
  HWY_ALIGN std::uint32_t square[kLanes * kLanes];
  for (int64_t s = 0; s < NumPairs(task.in_features); s += kLanes) {
    const int64_t columns = HWY_MIN(2 * kLanes, task.in_features - 2 * s);
    for (int64_t o = 0; o < panel.width; o += kLanes) {
      std::memset(square, 0, sizeof(square));
      for (int64_t r = 0; r < HWY_MIN(kLanes, panel.width - o); ++r) {
        const int64_t from = (panel.first + o + r) * task.in_features + 2 * s;
        std::memcpy(square + r * kLanes, weight + from * 2, static_cast<size_t>(columns) * 2);
      }
      Vec tile[kLanes];
      LoadTransposed([&](int64_t r) { return reinterpret_cast<const float*>(square) + r * kLanes; }, 0, tile);
      for (int64_t i = 0; i < NumPairs(columns); ++i) {
        StorePairs(tile[i], static_cast<const Half*>(nullptr), to + (s + i) * panel.stride() + o);
      }
    }
  }
}

// Two numbers of each of kLanes output features, from a panel.
struct WidePair {
  Vec first;
  Vec second;
};
HWY_INLINE WidePair LoadPair(const std::uint32_t* from, const BFloat16*) {
  const Bits bits = hn::LoadU(Uint32Tag(), from);
  return {hn::BitCast(FloatTag(), hn::ShiftLeft<16>(bits)),
          hn::BitCast(FloatTag(), hn::And(bits, SetBits(0xffff0000u)))};
}
HWY_INLINE WidePair LoadPair(const std::uint32_t* from, const Float16*) {
  const auto* halves = reinterpret_cast<const Float16*>(from);
  return {LoadWide(halves), LoadWide(halves + kLanes)};
}

template <typename T>
HWY_INLINE void WriteRowsAs(const LinearPanel& panel, int64_t row, int64_t num_rows) {
  const FloatTag d;
  const LinearTask& task = panel.task;
  for (int64_t o = 0; o < panel.width; o += kLanes) {
    const int64_t count = HWY_MIN(kLanes, panel.width - o);
    const Vec bias = task.bias == nullptr ? hn::Zero(d) : LoadFirst(task.bias + panel.first + o, count);
    T* y = static_cast<T*>(task.y) + row * task.y_stride + panel.first + o;
    for (int64_t r = 0; r < num_rows; ++r, y += task.y_stride) {
      const Vec sum = hn::Load(d, panel.sums + r * panel.stride() + o);
      StoreFirst(task.bias == nullptr ? sum : hn::Add(sum, bias), y, count);
    }
  }
}

// Writes `num_rows` rows from `row` on, whose sums are complete.
inline void WriteRows(const LinearPanel& panel, int64_t row, int64_t num_rows) {
  switch (panel.task.y_type) {
    case DataType::kFloat16: return WriteRowsAs<Float16>(panel, row, num_rows);
    case DataType::kBFloat16: return WriteRowsAs<BFloat16>(panel, row, num_rows);
    default: return WriteRowsAs<float>(panel, row, num_rows);
  }
}

}  // namespace
// NOLINTEND(google-build-namespaces,misc-definitions-in-headers)
}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#endif  // ATTEND_CORE_KERNELS_LINEAR_INL_H_
