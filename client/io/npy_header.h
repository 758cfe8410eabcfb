// The header of a .npy file: a Python dictionary with the element type, the order and the shape.
//
// Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. All functions are pure and may be
// called concurrently.
#ifndef ATTEND_CLIENT_IO_NPY_HEADER_H_
#define ATTEND_CLIENT_IO_NPY_HEADER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "client/lib/element_type.h"

namespace attend::client {

// What NumPy itself accepts at most (`max_header_size`), in bytes.
inline constexpr std::int64_t kMaxNpyHeaderBytes = 10000;

// What NumPy arrays have at most.
inline constexpr std::int64_t kMaxNpyAxes = 32;

struct NpyHeader {
  ElementType type = ElementType::kFloat32;
  bool fortran_order = false;  // The first axis varies fastest.
  std::vector<std::int64_t> shape;
};

// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (5, 64), }` and the padding behind it. The three keys may
// come in any order, each exactly once. Errors: INVALID_ARGUMENT for anything else, for Python objects (`|O`: a pickle,
// which runs code when read), structured and big-endian types, and more than kMaxNpyAxes axes.
absl::StatusOr<NpyHeader> ParseNpyHeader(std::string_view text);

// The beginning of a .npy file up to the first element: magic, version 1.0, header, padded to 64 bytes. Errors:
// INVALID_ARGUMENT for bfloat16, which NumPy does not have.
absl::StatusOr<std::string> FormatNpyPrefix(ElementType type, const std::vector<std::int64_t>& shape);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_IO_NPY_HEADER_H_
