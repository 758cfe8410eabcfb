// The sum over the values of a block, with value dimensions in lanes, from any type of number. Included once per
// instruction set.
#include "core/kernels/key_block-inl.h"

#if defined(ATTEND_CORE_KERNELS_KEY_VALUES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTEND_CORE_KERNELS_KEY_VALUES_INL_H_
#undef ATTEND_CORE_KERNELS_KEY_VALUES_INL_H_
#else
#define ATTEND_CORE_KERNELS_KEY_VALUES_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace attend {
namespace HWY_NAMESPACE {
// NOLINTBEGIN(google-build-namespaces,misc-definitions-in-headers): a part of each file that includes it, and its own
// there.
namespace {

// Adds kVectors vectors of value dimensions from `v` on of some keys of a block to kRows rows from `row` on.
template <typename T, int kRows, int kVectors, class Ahead>
HWY_INLINE void AddTile(const Block& block, const State& state, Keys keys, Ahead& ahead, int64_t row, int64_t v) {
  constexpr int kLinesPerKey = HWY_MAX(1, static_cast<int>(kVectors * kLanes * sizeof(T) / kLine));
  const FloatTag d;
  const int64_t stride = Ahead::kDense ? block.task.value_dim : block.task.values.stride;
  const T* value = block.task.values.Row<T>(block.first) + v;
  const float* p = block.scratch.scores + row * kKeyBlock;
  float* output = state.output + row * state.stride + v;
  Vec sum[kRows][kVectors];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int i = 0; i < kVectors; ++i) sum[r][i] = hn::LoadU(d, output + r * state.stride + i * kLanes);
  }
  Ahead lines = ahead;  // In registers.
  for (int64_t k = keys.begin; k < keys.end; ++k) {
    if (row == 0) lines.template Request<kLinesPerKey>();
    HWY_UNROLL(8)
    for (int i = 0; i < kVectors; ++i) {
      const Vec column = TimesScale<T>(LoadWide(value + k * stride + i * kLanes), block.task.values, block.first + k);
      HWY_UNROLL(8)
      for (int r = 0; r < kRows; ++r) sum[r][i] = hn::MulAdd(Broadcast(p[r * kKeyBlock + k]), column, sum[r][i]);
    }
  }
  ahead = lines;
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int i = 0; i < kVectors; ++i) hn::StoreU(sum[r][i], d, output + r * state.stride + i * kLanes);
  }
}

// The vectors of value dimensions that kRows rows take at a time, at most: as many as the registers allow.
template <int kRows>
constexpr int kMostVectors = HWY_MIN(8, (kManyRegisters ? 16 : 8) / kRows);

// All value dimensions for kRows rows, in tiles as wide as the registers allow.
template <typename T, int kRows, class Ahead>
HWY_NOINLINE void AddRows(const Block& block, const State& state, Keys keys, Ahead& ahead, int64_t row) {
  constexpr int kMost = kMostVectors<kRows>;
  int64_t v = 0;
  for (; v + kMost * kLanes <= block.task.value_dim; v += kMost * kLanes) {
    AddTile<T, kRows, kMost>(block, state, keys, ahead, row, v);
  }
  if constexpr (kMost > 4) {
    for (; v + 4 * kLanes <= block.task.value_dim; v += 4 * kLanes) {
      AddTile<T, kRows, 4>(block, state, keys, ahead, row, v);
    }
  }
  for (; v < block.task.value_dim; v += kLanes) AddTile<T, kRows, 1>(block, state, keys, ahead, row, v);
}

template <typename T, class Ahead>
void AddAllRows(const Block& block, const State& state, Keys keys, Ahead& ahead) {
  const int64_t rows = block.panel.num_rows;
  int64_t row = 0;
  if constexpr (kManyRegisters) {
    for (; row + 8 <= rows; row += 8) AddRows<T, 8>(block, state, keys, ahead, row);
  }
  for (; row + 4 <= rows; row += 4) AddRows<T, 4>(block, state, keys, ahead, row);
  for (; row + 2 <= rows; row += 2) AddRows<T, 2>(block, state, keys, ahead, row);
  for (; row < rows; ++row) AddRows<T, 1>(block, state, keys, ahead, row);
}

// The values of a whole block whose value dimensions fill vectors. Where one pass over each key's does not do, a few
// keys at a time.
template <typename T>
void AddWholeValues(const Block& block, const State& state) {
  const AttentionTask& task = block.task;
  const int64_t rows = block.panel.num_rows;
  const int64_t most = rows == 1 ? kMostVectors<1> : rows == 2 ? kMostVectors<2> : 0;
  const bool one_pass = task.value_dim <= most * kLanes;
  const int64_t step = one_pass ? kKeyBlock : kPassedKeys;
  const int64_t bytes = one_pass ? kValueBytesAhead<T> : kPassedBytesAhead;
  LinesAhead<false> dense(block, task.values, task.value_dim, bytes);
  LinesAhead<true> far(block, task.values, task.value_dim, bytes);
  ApartLinesAhead apart(block, task.values, task.value_dim, task.values_ahead);
  for (Keys keys{0, step}; keys.begin < kKeyBlock; keys = {keys.end, keys.end + step}) {
    if (task.values.stride != task.value_dim) {
      AddAllRows<T>(block, state, keys, apart);
    } else if (task.far_bytes != 0) {
      AddAllRows<T>(block, state, keys, far);
    } else {
      AddAllRows<T>(block, state, keys, dense);
    }
  }
}

// The same chains for any block, from copies where a vector would reach beyond the end of a row or has to be widened.
template <typename T>
void AddPartialValues(const Block& block, const State& state) {
  const AttentionTask& task = block.task;
  const FloatTag d;
  Rows values{block.scratch.values, state.stride};
  if constexpr (std::is_same_v<T, float>) {
    if (task.value_dim % kLanes == 0) values = {task.values.Row<float>(block.first), task.values.stride};
  }
  for (int64_t k = 0; k < block.count && values.data == block.scratch.values; ++k) {
    const T* value = task.values.Row<T>(block.first + k);
    for (int64_t v = 0; v < task.value_dim; v += kLanes) {
      const Vec numbers = TimesScale<T>(LoadFirst(value + v, task.value_dim - v), task.values, block.first + k);
      hn::StoreU(numbers, d, block.scratch.values + k * values.stride + v);
    }
  }
  Multiply<Walk::kAlongRows>(block.panel.num_rows, RoundUp(task.value_dim, kLanes) / kLanes,
                             {block.scratch.scores, kKeyBlock}, values, block.count, {state.output, state.stride},
                             true);
}

// Leaves out masked keys, whose p is -0.
template <typename T>
void AddSelectedValues(const Block& block, const State& state) {
  const FloatTag d;
  const AttentionTask& task = block.task;
  for (int64_t k = 0; k < block.count; ++k) {
    const T* value = task.values.Row<T>(block.first + k);
    for (int64_t r = 0; r < block.panel.num_rows; ++r) {
      const float p = block.scratch.scores[r * kKeyBlock + k];
      if (p == 0 && std::signbit(p)) continue;
      for (int64_t v = 0; v < task.value_dim; v += kLanes) {
        float* o = state.output + r * state.stride + v;
        const Vec numbers = TimesScale<T>(LoadFirst(value + v, task.value_dim - v), task.values, block.first + k);
        hn::StoreU(hn::MulAdd(Broadcast(p), numbers, hn::LoadU(d, o)), d, o);
      }
    }
  }
}

template <typename T>
void AddValuesOf(const Block& block, const State& state) {
  if (block.task.select_values) {
    AddSelectedValues<T>(block, state);
  } else if (block.count == kKeyBlock && block.task.value_dim % kLanes == 0) {
    AddWholeValues<T>(block, state);
  } else {
    AddPartialValues<T>(block, state);
  }
}

// Adds the block's values, weighted with what block.scratch.scores holds, to the outputs.
void AddBlockValues(const Block& block, const State& state) {
  switch (block.task.values.type) {
    case DataType::kFloat16: AddValuesOf<Float16>(block, state); break;
    case DataType::kBFloat16: AddValuesOf<BFloat16>(block, state); break;
    case DataType::kInt8: AddValuesOf<std::int8_t>(block, state); break;
    default: AddValuesOf<float>(block, state); break;
  }
}

}  // namespace
// NOLINTEND(google-build-namespaces,misc-definitions-in-headers)
}  // namespace HWY_NAMESPACE
}  // namespace attend
HWY_AFTER_NAMESPACE();

#endif  // ATTEND_CORE_KERNELS_KEY_VALUES_INL_H_
