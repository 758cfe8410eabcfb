// What the vector kernels offer to core/compute, without a word of SIMD: plain data in, plain functions.
//
// One source is compiled once per instruction set; KernelsFor() hands out that set's functions. There is no global
// choice: every call names its set, so tests run all of them in one process.
//
// The arithmetic of one query row, which every kernel follows to the bit:
//   s_j   = chain of fused multiply-adds over d ascending from 0 of (q_d * query_scale) * k_jd, in units of log2
//   s_j   = softcap * tanh(s_j); + log2(e) * bias_j; + alibi * |position - j|; -infinity where key j is masked
//   block = kKeyBlock keys at a multiple of kKeyBlock. If the block's maximum exceeds the running maximum m by more
//           than 8, then l and o are multiplied by exp2(m - block maximum) and m becomes it: decided per row
//   p_j   = exp2(s_j - m);  l = l + p_j;  o_v = fma(p_j, v_jv, o_v): keys ascending
//   chunk = kKeyChunk keys at a multiple of kKeyChunk: a state (m, l, o) of its own, merged into the total in
//           ascending order (Milakov & Gimelshein 2018, arXiv:1805.02867)
// A masked key changes nothing (p_j = 0), so skipping a dead block and computing it masked are the same.
//
// All functions are pure apart from the memory they are handed and may be called concurrently on different memory.
#ifndef ATTEND_CORE_KERNELS_KERNEL_TABLE_H_
#define ATTEND_CORE_KERNELS_KERNEL_TABLE_H_

#include <cstdint>
#include <limits>

#include "core/kernels/instruction_set.h"
#include "core/tensor/data_type.h"

namespace attend {

// Part of the result's definition, not tuning: the same for every instruction set, shape and number of threads.
inline constexpr std::int64_t kKeyBlock = 64;
inline constexpr std::int64_t kKeyChunk = 1024;

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;

// A row of numbers for each key.
struct KeyRows {
  const void* data = nullptr;          // The row of key `first`.
  DataType type = DataType::kFloat32;  // FLOAT32; for kernels that read narrow types also those.
  std::int64_t stride = 0;             // From row to row, in numbers.
  std::int64_t first = 0;              // More than 0 where rows are widened piece by piece.
  const float* scales = nullptr;       // Of INT8: that of key `first`, whose numbers are products with it.
  std::int64_t scale_stride = 0;       // From scale to scale.

  // The row of key j. REQUIRES: T is the type; j is within what is there.
  template <typename T>
  const T* Row(std::int64_t j) const {
    return static_cast<const T*>(data) + (j - first) * stride;
  }
  // The scale of key j. REQUIRES: the type is INT8; j is within what is there.
  const float* Scale(std::int64_t j) const { return scales + (j - first) * scale_stride; }
};

// What all rows of a panel share: one key/value head and the rules.
struct AttentionTask {
  KeyRows keys;    // [.., head_dim]
  KeyRows values;  // [.., value_dim]
  // What RowKernels::pack_values has written: rows of pairs, `value_pairs_stride` apart, from the one that begins with
  // key `first_value_pair` on; or the kernels' own order of 16 of these rows.
  const std::uint32_t* value_pairs = nullptr;
  std::int64_t value_pairs_stride = 0;
  std::int64_t first_value_pair = 0;
  std::int64_t key_length = 0;
  std::int64_t head_dim = 0;
  std::int64_t value_dim = 0;

  const std::uint8_t* key_mask = nullptr;  // [key_length], non-zero is visible to every row; null: all visible.
  std::int64_t key_mask_stride = 1;        // Between its keys: 1, or 0 to repeat one value.

  float query_scale = 1;         // scale * log2(e); with a softcap scale / softcap.
  float softcap = 0;             // softcap * log2(e), or 0 for none.
  bool has_bias = false;         // Then every row has one.
  bool has_alibi = false;        // Then every row has a slope.
  std::int64_t mask_stride = 1;  // Between the keys of a row's mask: 1, or 0 to repeat one value.
  std::int64_t bias_stride = 1;  // Likewise.
  // Skip masked keys in the sum over values instead of adding zero times their value: slower, and only different when
  // a masked value is not finite.
  bool select_values = false;
  // A visible key whose product with the query leaves float32's range makes its row's sum NaN, so that the caller
  // notices; unless Panel::may_overflow is false. Otherwise -infinity counts as masked, and a softcap swallows both
  // infinities.
  bool notice_overflow = true;
  // There are more keys and values, of all heads, than caches hold: they come from memory. Only speed depends on it.
  bool beyond_caches = false;
  // How many bytes before their use dense rows are requested into the second-level cache as well; 0: they are not. Only
  // speed depends on it.
  std::int64_t far_bytes = 0;

  // Where the rows are that are read after those of a block, in numbers from these; 0: the next block of the same head.
  // Only speed depends on it.
  std::int64_t keys_ahead = 0;
  std::int64_t values_ahead = 0;

  // The pairs of keys j and j + 1. REQUIRES: j is even and within what is there.
  const std::uint32_t* ValuePairs(std::int64_t j) const {
    return value_pairs + (j - first_value_pair) / 2 * value_pairs_stride;
  }
};

// One query row: where it is and what it sees. A null pointer means "absent".
struct QueryRow {
  const float* query = nullptr;  // [head_dim]
  std::int64_t key_begin = 0;    // Visible keys are within [key_begin, key_end).
  std::int64_t key_end = 0;
  const std::uint8_t* mask = nullptr;                    // [key_length], non-zero is visible.
  const float* bias = nullptr;                           // [key_length]
  float alibi = 0;                                       // -slope * log2(e)
  std::int64_t position = 0;                             // The row's position among the keys.
  float sink = -std::numeric_limits<float>::infinity();  // A logit times log2(e) in the denominator.
  float* output = nullptr;                               // [value_dim]
  float* weights = nullptr;                              // [key_length]
  float* scores = nullptr;                               // [key_length]
  float* log_sum_exp = nullptr;                          // One element.

  // Where scores are kept until the row's maximum and sum are known.
  float* kept_scores() const { return scores != nullptr ? scores : weights; }
};

// What packing finds out about the scaled queries of a panel.
struct PackedQueries {
  bool below_range = false;  // Scaling takes some number but 0 below float32's smallest normal number.
  float largest = 0;         // The largest magnitude; infinite or NaN if any number is.
};

// Rows that are computed together, and their memory, all owned by the caller.
struct Panel {
  const AttentionTask* task = nullptr;
  const QueryRow* rows = nullptr;
  std::int64_t num_rows = 0;  // In [1, RowKernels::max_rows].
  float* packed = nullptr;    // packed_size floats, written by pack.
  float* scratch = nullptr;   // scratch_size floats; may be shared by panels used one after the other.
  bool may_overflow = true;   // Products with the keys to come may leave float32's range, as far as is known.
};

// Rows of a panel whose results are to be doubted, row r by bit r.
struct DoubtfulRows {
  // The output is not finite although the sum of weights is: a value that is NaN or infinite took part, perhaps one
  // that is masked, or the sum over values left float32's range.
  std::uint64_t not_finite = 0;
  std::uint64_t nan_sum = 0;  // The sum of weights is NaN.
  std::uint64_t no_keys = 0;  // No key has a weight.
};

// One way of mapping rows and keys to vector lanes. Sizes are in floats; buffers are aligned to 64 bytes.
struct RowKernels {
  std::int64_t max_rows = 0;  // At most 64.
  // Keys and values may be FLOAT16, BFLOAT16 or INT8; otherwise they are FLOAT32.
  bool reads_narrow = false;
  bool flushes_products = false;  // Products of queries and keys below float32's normal numbers are 0.
  std::int64_t row_multiple = 1;  // Panels of a multiple of it waste no lanes; divides max_rows.
  std::int64_t (*packed_size)(const AttentionTask& task, std::int64_t num_rows) = nullptr;
  std::int64_t (*state_size)(const AttentionTask& task, std::int64_t num_rows) = nullptr;
  std::int64_t (*scratch_size)(const AttentionTask& task, std::int64_t num_rows) = nullptr;

  // Null, or must have written the values of all keys that accumulate takes, to where task.value_pairs says: for keys
  // `begin`, a multiple of kKeyBlock, up to `end`, value_dim pairs per two keys, in rows `to_stride` apart, a multiple
  // of 16. There is room for 16 rows per 32 keys or fewer.
  void (*pack_values)(const AttentionTask& task, std::int64_t begin, std::int64_t end, std::uint32_t* to,
                      std::int64_t to_stride) = nullptr;
  // Copies the scaled queries to panel.packed.
  PackedQueries (*pack)(const Panel& panel) = nullptr;
  // The largest magnitude in keys [begin, end); infinite or NaN if any number is. Null where noticing overflows costs
  // less than reading keys.
  float (*largest_key)(const AttentionTask& task, std::int64_t begin, std::int64_t end) = nullptr;
  // Makes `state` empty.
  void (*reset)(const Panel& panel, float* state) = nullptr;
  // Adds keys [begin, end) to `state`; keeps their scores if rows want them. REQUIRES: begin is a multiple of
  // kKeyBlock; end is one too or not below any row's key_end; all keys are of one chunk and below key_length.
  void (*accumulate)(const Panel& panel, std::int64_t begin, std::int64_t end, float* state) = nullptr;
  // total = total merged with chunk.
  void (*merge)(const Panel& panel, const float* chunk, float* total) = nullptr;
  // Applies sinks, normalises and writes every output of the rows.
  DoubtfulRows (*finish)(const Panel& panel, float* total) = nullptr;
};

// y = x . weight^T + bias for a range of output features; each element is a chain of fused multiply-adds over
// in_features ascending from 0, plus the bias last, rounded to y's type.
struct LinearTask {
  const void* x = nullptr;  // [num_rows, in_features] in FLOAT32, rows `x_stride` numbers apart.
  std::int64_t x_stride = 0;
  std::int64_t num_rows = 0;
  const void* weight = nullptr;               // [out_features, in_features], dense, at any address.
  DataType weight_type = DataType::kFloat32;  // FLOAT32, FLOAT16 or BFLOAT16.
  const void* panels = nullptr;               // What `pack` made of the weights, which are then not read; or null.
  const float* bias = nullptr;                // [out_features], or null.
  std::int64_t in_features = 0;
  std::int64_t out_features = 0;
  void* y = nullptr;                     // [num_rows, out_features], rows `y_stride` numbers apart.
  DataType y_type = DataType::kFloat32;  // FLOAT32, FLOAT16 or BFLOAT16.
  std::int64_t y_stride = 0;
};

struct LinearKernels {
  std::int64_t panel_width;  // Output features that share a packed panel.
  // The bytes of packed weights of `type`, which are aligned to 64 bytes: one panel after the other, so that those of
  // the output features from n * panel_width on start at packed_bytes(type, in_features, n * panel_width).
  std::int64_t (*packed_bytes)(DataType type, std::int64_t in_features, std::int64_t out_features);
  // Writes the panels of task.weight; of the task it reads the weight, its type and the numbers of features.
  void (*pack)(const LinearTask& task, void* panels);
  std::int64_t (*scratch_size)(const LinearTask& task);
  // Computes all of `task`, one panel after the other: the same bits whether they were packed before or are now.
  void (*linear)(const LinearTask& task, float* scratch);
};

// Between float and the types that numbers are stored in. `type` is FLOAT32, FLOAT16 or BFLOAT16. Each number by
// itself, so with the same bits for every instruction set. Pure; may be called concurrently on different memory. Memory
// of 16-bit numbers needs their alignment alone.
struct ConvertKernels {
  // to[i] = from[i], which is exact. A NaN stays one. `from` may be the second half of `to`.
  void (*widen)(DataType type, const void* from, std::int64_t count, float* to);
  // to[i] = from[i] rounded to the nearest number of `type`, ties to even: beyond the largest to infinity, below the
  // smallest through subnormal numbers to zero. A NaN stays one.
  void (*narrow)(DataType type, const float* from, std::int64_t count, void* to);
  // to[i] = from[i] * scale, rounded once to float.
  void (*dequantize)(const std::int8_t* from, std::int64_t count, float scale, float* to);
};

struct KernelTable {
  RowKernels prefill;  // Queries in lanes: the matrix-matrix case.
  RowKernels decode;   // Keys in lanes, for up to max_rows queries: limited by reading keys and values.
  LinearKernels linear;
  ConvertKernels convert;
};

// REQUIRES: `set` is one of SupportedInstructionSets().
const KernelTable& KernelsFor(InstructionSet set);

// The parts, each from its own translation unit.
const RowKernels& QueryLaneKernels(InstructionSet set);
const RowKernels& KeyLaneKernels(InstructionSet set);
const LinearKernels& LinearKernelsFor(InstructionSet set);
const ConvertKernels& ConvertKernelsFor(InstructionSet set);

}  // namespace attend

#endif  // ATTEND_CORE_KERNELS_KERNEL_TABLE_H_
