// Files that are taken for .safetensors and are something else.
#ifndef ATTEND_FORMATS_SAFETENSORS_FOREIGN_FORMAT_H_
#define ATTEND_FORMATS_SAFETENSORS_FOREIGN_FORMAT_H_

#include <string_view>

#include "absl/status/status.h"

namespace attend {

// Errors: INVALID_ARGUMENT when a file that begins with `first_bytes` (at least 8 of them) is of another known format,
// with what it is and what to do. OK for all else, and for every .safetensors file: the length with which one begins
// has zeros where a known format has none. Pure.
absl::Status RefuseForeignFormat(std::string_view first_bytes);

}  // namespace attend

#endif  // ATTEND_FORMATS_SAFETENSORS_FOREIGN_FORMAT_H_
