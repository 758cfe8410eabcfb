// Tensors as messages, for tests.
#ifndef ATTEND_TESTS_SUPPORT_TENSOR_MESSAGES_H_
#define ATTEND_TESTS_SUPPORT_TENSOR_MESSAGES_H_

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "attend/v1/tensor.pb.h"

namespace attend {

inline std::int64_t NumElements(const std::vector<std::int64_t>& shape) {
  std::int64_t elements = 1;
  for (const std::int64_t axis : shape) elements *= axis;
  return elements;
}

// `count` numbers of the normal distribution, the same for the same seed.
inline std::vector<float> RandomFloats(std::int64_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// FLOAT32 in `data`. REQUIRES: as many values as the shape has elements, if the message is to be valid.
inline v1::Tensor DataTensor(const std::vector<std::int64_t>& shape, const std::vector<float>& values) {
  v1::Tensor tensor;
  tensor.set_data_type(v1::DATA_TYPE_FLOAT32);
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
  tensor.set_data(values.data(), values.size() * sizeof(float));
  return tensor;
}

inline v1::Tensor RandomTensor(const std::vector<std::int64_t>& shape, std::uint32_t seed) {
  return DataTensor(shape, RandomFloats(NumElements(shape), seed));
}

// The elements of a FLOAT32 tensor in either form.
inline std::vector<float> Elements(const v1::Tensor& tensor) {
  if (tensor.data().empty()) return {tensor.values().begin(), tensor.values().end()};
  std::vector<float> values(tensor.data().size() / sizeof(float));
  std::memcpy(values.data(), tensor.data().data(), values.size() * sizeof(float));
  return values;
}

// Moves the elements of a FLOAT32 tensor from `data` to `values`.
inline void UseValues(v1::Tensor& tensor) {
  const std::vector<float> values = Elements(tensor);
  tensor.clear_data();
  tensor.mutable_values()->Add(values.begin(), values.end());
}

// BOOL in `data`, one byte for each element.
inline v1::Tensor BoolTensor(const std::vector<std::int64_t>& shape, const std::string& bytes) {
  v1::Tensor tensor;
  tensor.set_data_type(v1::DATA_TYPE_BOOL);
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
  tensor.set_data(bytes);
  return tensor;
}

inline std::vector<std::int64_t> Shape(const v1::Tensor& tensor) {
  return {tensor.shape().begin(), tensor.shape().end()};
}

}  // namespace attend

#endif  // ATTEND_TESTS_SUPPORT_TENSOR_MESSAGES_H_
