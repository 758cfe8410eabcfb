// Tensors of every type as messages, for tests; converted by Eigen and not by the code under test.
#ifndef ATTEND_TESTS_SUPPORT_TYPED_MESSAGES_H_
#define ATTEND_TESTS_SUPPORT_TYPED_MESSAGES_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "attend/v1/tensor.pb.h"
#include "tests/support/tensor_messages.h"
#include "tests/support/typed_tensor.h"

namespace attend {

// REQUIRES: the type of numbers.
inline DataType CoreType(v1::DataType type) {
  switch (type) {
    case v1::DATA_TYPE_FLOAT64: return DataType::kFloat64;
    case v1::DATA_TYPE_FLOAT16: return DataType::kFloat16;
    case v1::DATA_TYPE_BFLOAT16: return DataType::kBFloat16;
    default: return DataType::kFloat32;
  }
}

// Gives a FLOAT32 tensor in `data` another type, its numbers rounded to that.
inline void SetType(v1::Tensor& tensor, v1::DataType type) {
  const testing::TypedTensor typed = testing::TypedTensor::From(Elements(tensor), CoreType(type));
  tensor.set_data_type(type);
  tensor.set_data(typed.bytes.data(), typed.bytes.size());
}

// The numbers of a tensor in `data` of any type but BOOL.
inline std::vector<double> Numbers(const v1::Tensor& tensor) {
  if (tensor.data_type() == v1::DATA_TYPE_INT32) {
    std::vector<std::int32_t> numbers(tensor.data().size() / sizeof(std::int32_t));
    std::memcpy(numbers.data(), tensor.data().data(), tensor.data().size());
    return {numbers.begin(), numbers.end()};
  }
  const DataType type = CoreType(tensor.data_type());
  testing::TypedTensor typed(type, tensor.data().size() / static_cast<std::size_t>(ElementSize(type)));
  std::memcpy(typed.bytes.data(), tensor.data().data(), tensor.data().size());
  return typed.Doubles();
}

}  // namespace attend

#endif  // ATTEND_TESTS_SUPPORT_TYPED_MESSAGES_H_
