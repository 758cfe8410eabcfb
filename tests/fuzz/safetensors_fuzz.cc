// Fuzzes the .safetensors reader: whatever the bytes are, they are refused, or every byte behind the header belongs to
// exactly one tensor, and the tensors written and read again are the same. `make fuzz` runs it for long;
// `ctest -R safetensors_fuzz_replay` runs the corpus.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "client/io/safetensors.h"

namespace {

using attend::client::NamedTensor;
using attend::client::SafetensorsReader;
using attend::client::Tensor;

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "safetensors_fuzz: %s\n", what);
  std::abort();
}

absl::StatusOr<SafetensorsReader> Open(std::string bytes) {
  return SafetensorsReader::Create(std::make_unique<std::istringstream>(std::move(bytes)), "input");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  absl::StatusOr<SafetensorsReader> file = Open(std::string(reinterpret_cast<const char*>(data), size));
  if (!file.ok()) {
    Require(!file.status().message().empty(), "a refusal without a reason");
    return 0;
  }
  std::vector<NamedTensor> tensors;
  std::size_t bytes = 0;
  for (const auto& [name, entry] : file->header().tensors) {
    bytes += static_cast<std::size_t>(entry.end - entry.begin);
    absl::StatusOr<Tensor> tensor = file->Read(name);
    Require(tensor.ok() == attend::client::FindElementType(entry.dtype).has_value(),
            "a tensor of a valid file cannot be read");
    if (tensor.ok()) tensors.push_back({name, *std::move(tensor)});
  }
  Require(bytes <= size, "more bytes in tensors than in the file");
  const absl::StatusOr<std::string> written = attend::client::FormatSafetensors(tensors);
  if (!written.ok()) return 0;  // A name with U+FFFD is read but not written.
  absl::StatusOr<SafetensorsReader> again = Open(*written);
  Require(again.ok(), "what was written cannot be read");
  for (const NamedTensor& tensor : tensors) {
    const absl::StatusOr<Tensor> reread = again->Read(tensor.name);
    Require(reread.ok() && reread->bytes() == tensor.tensor.bytes() && reread->shape() == tensor.tensor.shape(),
            "what was written is read as something else");
  }
  return 0;
}
