// Shared by the two halves of the reference, scaled dot-product attention (reference.cc) and layers
// (reference_layer.cc), and by no other file.
//
// Pure; may be called concurrently.
#ifndef ATTEND_CORE_REFERENCE_REFERENCE_OPERANDS_H_
#define ATTEND_CORE_REFERENCE_REFERENCE_OPERANDS_H_

#include <Eigen/Core>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/problem/options.h"
#include "core/reference/reference.h"

namespace attend::reference {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// The axes of a problem.
struct Axes {
  std::int64_t batch = 1, heads = 1, queries = 1, keys = 1;
};

// Queries and the keys that they see: a batch entry, or one sequence of a ragged batch.
struct Segment {
  std::int64_t first_query = 0, num_queries = 0;
  std::int64_t first_key = 0, num_keys = 0;
  std::int64_t valid_queries = 0, valid_keys = 0;  // T' and S'.

  // The position among the segment's keys of its query i.
  std::int64_t Position(CausalMode causal, std::int64_t i) const {
    return causal == CausalMode::kTopLeft ? i : i + valid_keys - valid_queries;
  }
};

// All segments of batch entry b, in order.
std::vector<Segment> Segments(const AttentionOptions& options, const Axes& axes, std::int64_t b);

// A problem with its numbers widened to float64: one matrix for each batch entry and head, batch entries outermost.
struct Operands {
  Axes axes;
  AttentionOptions options;
  std::int64_t kv_heads = 1;
  std::vector<Matrix> query;  // B * H matrices [T, E]
  std::vector<Matrix> key;    // B * K matrices [S, E]
  std::vector<Matrix> value;  // B * K matrices [S, V]

  const Matrix& Query(std::int64_t b, std::int64_t h) const { return query[Index(b, h, axes.heads)]; }
  const Matrix& Key(std::int64_t b, std::int64_t h) const { return key[Index(b, KvHead(h), kv_heads)]; }
  const Matrix& Value(std::int64_t b, std::int64_t h) const { return value[Index(b, KvHead(h), kv_heads)]; }

 private:
  std::int64_t KvHead(std::int64_t h) const { return h / (axes.heads / kv_heads); }
  static std::size_t Index(std::int64_t b, std::int64_t h, std::int64_t heads) {
    return static_cast<std::size_t>(b * heads + h);
  }
};

// Number i of a row of any type; of INT8 the integer.
double Number(const void* numbers, DataType type, std::int64_t i);

template <typename Dense>
void Append(std::vector<double>& to, const Dense& rows) {
  to.insert(to.end(), rows.data(), rows.data() + rows.size());
}

// softmax(scores) . value for every batch entry and head: everything of the result but `query`, `key` and `value`.
ReferenceResult Attention(const Operands& x);

}  // namespace attend::reference

#endif  // ATTEND_CORE_REFERENCE_REFERENCE_OPERANDS_H_
