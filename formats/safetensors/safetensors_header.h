// The header of a .safetensors file: JSON that says where each tensor's bytes are.
//
// Format: https://huggingface.co/docs/safetensors, with smaller limits than the format's own. A file is 8 bytes with
// the header's length (little-endian), the header, and the tensors' bytes. Every rule of the format is checked before a
// tensor is read, so that a file has one meaning only: no duplicate key, no hole and no overlap between tensors, no
// byte that belongs to nobody.
//
// What the numbers mean is left to those who read tensors: client/io/safetensors.h, formats/safetensors/checkpoint.h.
//
// Pure; may be called concurrently.
#ifndef ATTEND_FORMATS_SAFETENSORS_SAFETENSORS_HEADER_H_
#define ATTEND_FORMATS_SAFETENSORS_SAFETENSORS_HEADER_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace attend {

// Limits below the format's own.
struct SafetensorsLimits {
  // The format allows 100 MB; the header of a model with ten thousand tensors is about 1 MiB.
  std::int64_t max_header_bytes = std::int64_t{1} << 20;
  std::int64_t max_tensors = 16384;
};

// The length that stands before the header, in bytes.
inline constexpr std::int64_t kSafetensorsLengthBytes = 8;

// Where one tensor is. Offsets are in bytes from the end of the header.
struct SafetensorsEntry {
  std::string dtype;  // As in the file, and known to the format: `F32`, `I64`, `F8_E4M3`, ...
  std::vector<std::int64_t> shape;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry> tensors;
  std::map<std::string, std::string> metadata;  // `__metadata__`
};

// The header's length, from the first bytes of a file of `file_bytes` bytes. Errors: DATA_LOSS when the file ends
// before it or inside the header; INVALID_ARGUMENT for a file of another format and when the length is above the limit.
absl::StatusOr<std::int64_t> ParseSafetensorsLength(std::string_view first_bytes, std::int64_t file_bytes,
                                                    const SafetensorsLimits& limits = {});

// `text` is the header without the length before it; `data_bytes` is how many bytes follow it in the file.
//
// Errors: INVALID_ARGUMENT, naming the tensor, when the text does not begin with '{', is not UTF-8 or not JSON, has a
// duplicate or unknown key, a value of the wrong kind, an unknown type, a negative or fractional number, or more
// tensors than the limit; when a tensor's bytes are not exactly what its type and shape imply; when tensors overlap,
// leave holes, or do not end exactly where the file does.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view text, std::int64_t data_bytes,
                                                         const SafetensorsLimits& limits = {});

// A whole file in memory.
struct SafetensorsFile {
  SafetensorsHeader header;
  std::string_view data;  // Behind the header; views the file.
};

// Both of the above. Errors: theirs.
absl::StatusOr<SafetensorsFile> ParseSafetensors(std::string_view file, const SafetensorsLimits& limits = {});

}  // namespace attend

#endif  // ATTEND_FORMATS_SAFETENSORS_SAFETENSORS_HEADER_H_
