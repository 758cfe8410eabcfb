// What the two halves of the reference share: scaled dot-product attention (reference.cc) and layers
// (reference_layer.cc). For those files only.
//
// Pure; may be called concurrently.
#ifndef ATTEND_CORE_ATTENTION_REFERENCE_OPERANDS_H_
#define ATTEND_CORE_ATTENTION_REFERENCE_OPERANDS_H_

#include <Eigen/Core>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/attention/key_visibility.h"
#include "core/attention/options.h"
#include "core/attention/reference.h"

namespace attend::reference {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// A problem with its numbers widened to float64: one matrix for each batch entry and head, batch entries outermost.
struct Operands {
  AttentionShape shape;
  AttentionOptions options;
  std::int64_t kv_heads = 1;
  std::vector<Matrix> query;  // B * H matrices [T, E]
  std::vector<Matrix> key;    // B * K matrices [S, E]
  std::vector<Matrix> value;  // B * K matrices [S, V]

  const Matrix& Query(std::int64_t b, std::int64_t h) const { return query[Index(b, h, shape.heads)]; }
  const Matrix& Key(std::int64_t b, std::int64_t h) const { return key[Index(b, KvHead(h), kv_heads)]; }
  const Matrix& Value(std::int64_t b, std::int64_t h) const { return value[Index(b, KvHead(h), kv_heads)]; }

 private:
  std::int64_t KvHead(std::int64_t h) const { return h / (shape.heads / kv_heads); }
  static std::size_t Index(std::int64_t b, std::int64_t h, std::int64_t heads) {
    return static_cast<std::size_t>(b * heads + h);
  }
};

// Number i of a row of any type.
double Number(const void* numbers, DataType type, std::int64_t i);

template <typename Dense>
void Append(std::vector<double>& to, const Dense& rows) {
  to.insert(to.end(), rows.data(), rows.data() + rows.size());
}

// softmax(scores) . value for every batch entry and head: everything of the result but `query`, `key` and `value`.
ReferenceResult Attention(const Operands& x);

}  // namespace attend::reference

#endif  // ATTEND_CORE_ATTENTION_REFERENCE_OPERANDS_H_
