// FLOAT64 attention, a query row at a time: plain and exact rather than fast, with the same bits for every instruction
// set that has fused multiply-add.
//
// A product of two rows is eight partial sums, element d going to sum d modulo 8, each a chain of fused multiply-adds
// in ascending order, which are then added pairwise in a fixed order. The softmax takes the row's true maximum, and
// outputs are chains over ascending keys.
//
// All functions are pure apart from the memory they are handed and may be called concurrently on different memory.
#ifndef ATTEND_CORE_KERNELS_DOUBLE_KERNELS_H_
#define ATTEND_CORE_KERNELS_DOUBLE_KERNELS_H_

#include <cstdint>
#include <limits>

#include "core/kernels/instruction_set.h"
#include "core/tensor/data_type.h"

namespace attend {

// What all rows of one key/value head share.
struct DoubleTask {
  const double* key = nullptr;  // [key_length, head_dim], rows `key_stride` apart.
  std::int64_t key_stride = 0;
  const double* value = nullptr;  // [key_length, value_dim], rows `value_stride` apart.
  std::int64_t value_stride = 0;
  std::int64_t key_length = 0;
  std::int64_t head_dim = 0;
  std::int64_t value_dim = 0;
  const std::uint8_t* key_mask = nullptr;  // [key_length], non-zero is visible to every row; null: all visible.
  std::int64_t key_mask_stride = 1;        // Between its keys: 1, or 0 to repeat one value.
  double scale = 1;
  double softcap = 0;                       // 0 for none.
  std::int64_t mask_stride = 1;             // Between the keys of a row's mask: 1, or 0 to repeat one value.
  DataType bias_type = DataType::kFloat64;  // FLOAT64 or FLOAT32.
  std::int64_t bias_stride = 1;             // Likewise.
};

// One query row: where it is and what it sees. A null pointer means "absent".
struct DoubleRow {
  const double* query = nullptr;  // [head_dim]
  std::int64_t key_begin = 0;     // Visible keys are within [key_begin, key_end).
  std::int64_t key_end = 0;
  const std::uint8_t* mask = nullptr;  // [key_length], non-zero is visible.
  const void* bias = nullptr;          // [key_length] of `bias_type`
  double alibi_slope = 0;
  double position = 0;  // The row's position among the keys.
  double sink = -std::numeric_limits<double>::infinity();
  double* output = nullptr;      // [value_dim]
  double* weights = nullptr;     // [key_length]
  double* scores = nullptr;      // [key_length]
  float* log_sum_exp = nullptr;  // One element.
};

// Whether the masks leave key j visible to the row.
inline bool IsUnmasked(const DoubleTask& task, const DoubleRow& row, std::int64_t j) {
  return (task.key_mask == nullptr || task.key_mask[j * task.key_mask_stride] != 0) &&
         (row.mask == nullptr || row.mask[j * task.mask_stride] != 0);
}

// A row's softmax while it is computed.
struct DoubleSoftmax {
  double max = -std::numeric_limits<double>::infinity();  // Of the scores and the sink.
  double sum = 0;                                         // The denominator: 0 when no key is visible.
};

struct DoubleKernels {
  // scores[j] for keys j in [begin, end), a part of [key_begin, key_end): scaled, capped, biased; -infinity where
  // masked.
  void (*scores)(const DoubleTask& task, const DoubleRow& row, std::int64_t begin, std::int64_t end, double* scores);
  // Turns scores [key_begin, key_end) into exp(score - max) and adds them up; -0 marks masked keys.
  DoubleSoftmax (*softmax)(const DoubleRow& row, double* scores);
  // output += the values of keys [begin, end), weighted by what softmax left. Masked keys are not read.
  void (*values)(const DoubleTask& task, const double* exponentials, std::int64_t begin, std::int64_t end,
                 double* output);
  // exponentials / sum for all keys to row.weights, output / sum to row.output in place, log-sum-exp.
  void (*finish)(const DoubleTask& task, const DoubleRow& row, const DoubleSoftmax& softmax,
                 const double* exponentials);
  // x . y, two rows of `size`.
  double (*dot)(const double* x, const double* y, std::int64_t size);
};

// REQUIRES: `set` is one of SupportedInstructionSets().
const DoubleKernels& DoubleKernelsFor(InstructionSet set);

}  // namespace attend

#endif  // ATTEND_CORE_KERNELS_DOUBLE_KERNELS_H_
