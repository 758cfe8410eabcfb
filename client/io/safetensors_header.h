// The header of a .safetensors file: JSON that says where each tensor's bytes are.
//
// Format: https://huggingface.co/docs/safetensors, with a smaller limit on the header than the format's own. Every rule
// of the format is checked before a tensor is read, so that a file has one meaning only: no duplicate key, no hole and
// no overlap between tensors, no byte that belongs to nobody.
//
// Pure; may be called concurrently.
#ifndef ATTEND_CLIENT_IO_SAFETENSORS_HEADER_H_
#define ATTEND_CLIENT_IO_SAFETENSORS_HEADER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "client/lib/element_type.h"

namespace attend::client {

// The format allows 100 MB; the header of a model with ten thousand tensors is about 1 MiB.
inline constexpr std::int64_t kMaxSafetensorsHeaderBytes = std::int64_t{1} << 20;

// Where one tensor is. Offsets are in bytes from the end of the header.
struct SafetensorsEntry {
  std::string type_name;            // As in the file: `F32`, `I64`, `F8_E4M3`, ...
  std::optional<ElementType> type;  // None for a type that this client cannot represent.
  std::vector<std::int64_t> shape;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry> tensors;
  std::map<std::string, std::string> metadata;  // `__metadata__`
};

// `text` is the header without the length before it; `data_bytes` is how many bytes follow it in the file.
//
// Errors: INVALID_ARGUMENT, naming the tensor, when the text does not begin with '{', is not UTF-8 or not JSON, has a
// duplicate or unknown key, a value of the wrong kind, an unknown type, a negative or fractional number; when a
// tensor's bytes are not exactly what its type and shape imply; when tensors overlap, leave holes, or do not end
// exactly where the file does.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view text, std::int64_t data_bytes);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_IO_SAFETENSORS_HEADER_H_
