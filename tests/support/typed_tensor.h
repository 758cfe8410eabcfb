// Tensors of any type for tests, converted by Eigen and not by the code under test.
#ifndef ATTEND_TESTS_SUPPORT_TYPED_TENSOR_H_
#define ATTEND_TESTS_SUPPORT_TYPED_TENSOR_H_

#include <Eigen/Core>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/tensor/data_type.h"
#include "core/tensor/heads_view.h"

namespace attend::testing {

// Calls visit(T()) with the C++ type of `type`.
template <typename Visitor>
auto VisitNumber(DataType type, const Visitor& visit) {
  switch (type) {
    case DataType::kFloat64: return visit(double{});
    case DataType::kFloat16: return visit(Eigen::half{});
    case DataType::kBFloat16: return visit(Eigen::bfloat16{});
    default: return visit(float{});
  }
}

// Row-major numbers of one type.
struct TypedTensor {
  DataType type = DataType::kFloat32;
  std::vector<std::byte> bytes;

  TypedTensor(DataType t, std::size_t size) : type(t), bytes(size * static_cast<std::size_t>(ElementSize(t))) {}

  // `numbers` rounded to `type`, to nearest and ties to even.
  template <typename Numbers>
  static TypedTensor From(const Numbers& numbers, DataType type) {
    TypedTensor tensor(type, numbers.size());
    VisitNumber(type, [&](auto zero) {
      auto* to = reinterpret_cast<decltype(zero)*>(tensor.bytes.data());
      for (std::size_t i = 0; i < numbers.size(); ++i) to[i] = static_cast<decltype(zero)>(numbers[i]);
    });
    return tensor;
  }

  std::size_t size() const { return bytes.size() / static_cast<std::size_t>(ElementSize(type)); }

  std::vector<double> Doubles() const {
    std::vector<double> numbers(size());
    VisitNumber(type, [&](auto zero) {
      const auto* from = reinterpret_cast<const decltype(zero)*>(bytes.data());
      for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<double>(from[i]);
    });
    return numbers;
  }
  std::vector<float> Floats() const {
    const std::vector<double> numbers = Doubles();
    return {numbers.begin(), numbers.end()};
  }

  // [batch, heads, length, dim]
  TypedHeadsView View(std::int64_t batch, std::int64_t heads, std::int64_t length, std::int64_t dim) const {
    return SplitTypedHeads(static_cast<const void*>(bytes.data()), type, batch, heads, length, dim);
  }
  MutableTypedHeadsView MutableView(std::int64_t batch, std::int64_t heads, std::int64_t length, std::int64_t dim) {
    return SplitTypedHeads(static_cast<void*>(bytes.data()), type, batch, heads, length, dim);
  }

  friend bool operator==(const TypedTensor& a, const TypedTensor& b) { return a.type == b.type && a.bytes == b.bytes; }
};

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_TYPED_TENSOR_H_
