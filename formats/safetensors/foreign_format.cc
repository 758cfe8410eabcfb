#include "formats/safetensors/foreign_format.h"

#include "absl/strings/str_cat.h"

namespace attend {
namespace {

constexpr std::size_t kLengthBytes = 8;
constexpr std::string_view kZeros("\0\0\0\0", 4);  // The upper half of the length of any header that is read.

constexpr char kWrite[] = "safetensors.numpy.save_file and safetensors.torch.save_file write one";

struct Format {
  std::string_view begin;
  const char* name;
  const char* advice = kWrite;
};
constexpr Format kFormats[] = {
    {"\x93NUMPY", "a NumPy array (.npy)"},
    {"PK\x03\x04", "a zip archive, as .npz files and PyTorch's checkpoints are"},
    {"\x80\x02", "a Python pickle, as old checkpoints of PyTorch are"},
    {"\x80\x03", "a Python pickle"},
    {"\x80\x04", "a Python pickle"},
    {"\x80\x05", "a Python pickle"},
    {"\x89HDF\r\n", "an HDF5 file"},
    {"GGUF", "a GGUF file"},
    {"version ", "a pointer of Git LFS", "git lfs pull fetches the file itself"},
    {"{", "JSON text", "of a sharded model, take the shard that has the layer"},
};

}  // namespace

absl::Status RefuseForeignFormat(std::string_view first_bytes) {
  if (first_bytes.size() < kLengthBytes || first_bytes.substr(kLengthBytes / 2, kZeros.size()) == kZeros) {
    return absl::OkStatus();
  }
  for (const Format& format : kFormats) {
    if (first_bytes.substr(0, format.begin.size()) != format.begin) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("expected a .safetensors file, and this is ", format.name, "; ", format.advice));
  }
  return absl::OkStatus();
}

}  // namespace attend
