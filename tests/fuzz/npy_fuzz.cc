// Fuzzes the .npy reader: whatever the bytes are, they are refused or become a tensor whose size is what its shape
// says, and which written and read again is the same tensor. `make fuzz` runs it for long; `ctest -R npy_fuzz_replay`
// runs the corpus.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>

#include "client/io/npy.h"

namespace {

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "npy_fuzz: %s\n", what);
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using attend::client::Tensor;
  std::istringstream in(std::string(reinterpret_cast<const char*>(data), size));
  const absl::StatusOr<Tensor> tensor = attend::client::ReadNpy(in);
  if (!tensor.ok()) {
    Require(!tensor.status().message().empty(), "a refusal without a reason");
    return 0;
  }
  Require(tensor->bytes().size() <= size, "more elements than the file has bytes");
  const absl::StatusOr<std::string> written = attend::client::FormatNpy(*tensor);
  Require(written.ok(), "what was read cannot be written");
  std::istringstream again(*written);
  const absl::StatusOr<Tensor> reread = attend::client::ReadNpy(again);
  Require(reread.ok(), "what was written cannot be read");
  Require(reread->bytes() == tensor->bytes() && reread->shape() == tensor->shape() && reread->type() == tensor->type(),
          "what was written is read as something else");
  return 0;
}
