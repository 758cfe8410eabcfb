// Fuzzes the .npz reader: whatever the bytes are, they are refused or become named tensors, which written and read
// again are the same ones. `make fuzz` runs it for long; `ctest -R npz_fuzz_replay` runs the corpus.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "client/io/npz.h"

namespace {

using attend::client::NamedTensor;
using attend::client::NpzReader;
using attend::client::Tensor;

constexpr std::size_t kMostExpansion = 1100;  // Of deflate, and something for headers.

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "npz_fuzz: %s\n", what);
  std::abort();
}

absl::StatusOr<NpzReader> Open(const std::string& bytes) {
  return NpzReader::Create(std::make_unique<std::istringstream>(bytes), "fuzz.npz");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  absl::StatusOr<NpzReader> file = Open(std::string(reinterpret_cast<const char*>(data), size));
  if (!file.ok()) {
    Require(!file.status().message().empty(), "a refusal without a reason");
    return 0;
  }
  std::vector<NamedTensor> tensors;
  for (const std::string& name : file->Names()) {
    absl::StatusOr<Tensor> tensor = file->Read(name);
    if (!tensor.ok()) continue;
    Require(tensor->bytes().size() <= size * kMostExpansion, "more elements than the file can hold");
    tensors.push_back({name, *std::move(tensor)});
  }
  const absl::StatusOr<std::string> written = attend::client::FormatNpz(tensors);
  Require(written.ok(), "what was read cannot be written");
  absl::StatusOr<NpzReader> again = Open(*written);
  Require(again.ok(), "what was written cannot be opened");
  for (const NamedTensor& entry : tensors) {
    const absl::StatusOr<Tensor> reread = again->Read(entry.name);
    Require(reread.ok(), "what was written cannot be read");
    Require(reread->bytes() == entry.tensor.bytes() && reread->shape() == entry.tensor.shape(),
            "what was written is read as something else");
  }
  return 0;
}
