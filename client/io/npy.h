// Reads and writes .npy files, NumPy's format for one array.
//
// Versions 1.0 to 3.0, little-endian numbers and booleans, C and Fortran order (turned into C order). The header's
// length is checked before it is read, and memory grows only with bytes that are there. Python objects are refused.
//
// May be called concurrently on different streams.
#ifndef ATTEND_CLIENT_IO_NPY_H_
#define ATTEND_CLIENT_IO_NPY_H_

#include <istream>
#include <string>

#include "absl/status/statusor.h"
#include "client/lib/tensor.h"

namespace attend::client {

// Reads one array from where `in` stands, and nothing behind it. Errors: INVALID_ARGUMENT (not a .npy file, a header
// that is malformed or asks for what is not supported), DATA_LOSS (it ends too early).
absl::StatusOr<Tensor> ReadNpy(std::istream& in);

// Reads a file that holds exactly one array. Errors: as ReadNpy, with the path; INVALID_ARGUMENT when bytes follow the
// array; NOT_FOUND.
absl::StatusOr<Tensor> ReadNpyFile(const std::string& path);

// The contents of a .npy file (version 1.0, C order). Errors: INVALID_ARGUMENT for bfloat16, which NumPy does not have.
absl::StatusOr<std::string> FormatNpy(const Tensor& tensor);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_IO_NPY_H_
