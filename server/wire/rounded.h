// What a number of a tensor's `values` is in the tensor's type.
#ifndef ATTEND_SERVER_WIRE_ROUNDED_H_
#define ATTEND_SERVER_WIRE_ROUNDED_H_

#include <cstdint>

#include "core/kernels/kernel_table.h"
#include "core/tensor/data_type.h"

namespace attend::server {

// `value` as `type` holds it: rounded to a 16-bit type and widened again, itself for any other. Pure.
inline float RoundedTo(DataType type, float value, const ConvertKernels& convert) {
  if (ElementSize(type) != 2) return value;
  std::uint16_t narrow = 0;
  convert.narrow(type, &value, 1, &narrow);
  convert.widen(type, &narrow, 1, &value);
  return value;
}

}  // namespace attend::server

#endif  // ATTEND_SERVER_WIRE_ROUNDED_H_
