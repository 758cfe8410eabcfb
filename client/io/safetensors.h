// Reads and writes .safetensors files, a format for named tensors that cannot carry code.
//
//   absl::StatusOr<SafetensorsReader> file = SafetensorsReader::Open("weights.safetensors");
//   absl::StatusOr<Tensor> weight = file->Read("query.weight");
//
// The whole header is checked when a file is opened (formats/safetensors/safetensors_header.h); tensors are read when
// asked for.
#ifndef ATTEND_CLIENT_IO_SAFETENSORS_H_
#define ATTEND_CLIENT_IO_SAFETENSORS_H_

#include <istream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/lib/tensor.h"
#include "formats/safetensors/safetensors_header.h"

namespace attend::client {

// The element type that a file calls `dtype` (`F32`, `I64`, ...); none for one that this client cannot represent.
std::optional<ElementType> FindElementType(std::string_view dtype);

// Thread-compatible; move-only.
class SafetensorsReader {
 public:
  // Errors: NOT_FOUND; INVALID_ARGUMENT (with the path) when the file breaks a rule of the format or its header is
  // larger than 1 MiB; DATA_LOSS when it ends inside the header.
  static absl::StatusOr<SafetensorsReader> Open(const std::string& path);

  // The same for any stream that can seek. `name` is used in messages.
  static absl::StatusOr<SafetensorsReader> Create(std::unique_ptr<std::istream> in, const std::string& name);

  // Errors: NOT_FOUND, listing the names there are; INVALID_ARGUMENT for an element type that this client cannot
  // represent; DATA_LOSS when the file shrank after it was opened.
  absl::StatusOr<Tensor> Read(const std::string& name);

  bool Contains(const std::string& name) const { return header_.tensors.count(name) > 0; }

  // In alphabetical order.
  std::vector<std::string> Names() const;

  const SafetensorsHeader& header() const { return header_; }

 private:
  SafetensorsReader(std::unique_ptr<std::istream> in, std::string name, std::int64_t data_begin,
                    SafetensorsHeader header)
      : in_(std::move(in)), name_(std::move(name)), data_begin_(data_begin), header_(std::move(header)) {}

  std::unique_ptr<std::istream> in_;
  std::string name_;
  std::int64_t data_begin_;  // In bytes from the start of the file.
  SafetensorsHeader header_;
};

// The contents of a .safetensors file with `tensors` in the given order. The header is padded so that the data begins
// at a multiple of 8 bytes. Errors: INVALID_ARGUMENT for two tensors of one name, the name `__metadata__`, or a name
// that is not UTF-8.
absl::StatusOr<std::string> FormatSafetensors(absl::Span<const NamedTensor> tensors);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_IO_SAFETENSORS_H_
