#include "client/io/npy.h"

#include <cstdint>
#include <cstring>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/io/npy_header.h"
#include "client/io/stream.h"

namespace attend::client {
namespace {

constexpr std::string_view kMagic("\x93NUMPY", 6);

// The little-endian number in `bytes`.
std::int64_t LittleEndian(std::string_view bytes) {
  std::int64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

// Reads magic, version and length, then the header's text.
absl::StatusOr<std::string> ReadHeaderText(std::istream& in) {
  const absl::StatusOr<std::string> start = ReadExactly(in, 8, "the .npy header");
  if (!start.ok()) return start.status();
  if (start->substr(0, kMagic.size()) != kMagic) {
    return absl::InvalidArgumentError("it is not a .npy file: it does not begin with \\x93NUMPY");
  }
  const int major = static_cast<unsigned char>((*start)[6]);
  const int minor = static_cast<unsigned char>((*start)[7]);
  if (major < 1 || major > 3 || minor != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the .npy version is ", major, ".", minor, "; versions 1.0, 2.0 and 3.0 are read"));
  }
  const absl::StatusOr<std::string> length = ReadExactly(in, major == 1 ? 2 : 4, "the .npy header");
  if (!length.ok()) return length.status();
  const std::int64_t header_bytes = LittleEndian(*length);
  if (header_bytes > kMaxNpyHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the .npy header claims ", header_bytes, " bytes; at most ", kMaxNpyHeaderBytes, " are read"));
  }
  return ReadExactly(in, header_bytes, "the .npy header");
}

// `bytes` of an array whose first axis varies fastest, reordered so that the last one does.
std::string FromFortranOrder(const std::string& bytes, const std::vector<std::int64_t>& shape, std::int64_t size) {
  const std::size_t axes = shape.size();
  std::vector<std::int64_t> strides(axes);  // Of the source, in bytes.
  std::int64_t stride = size;
  for (std::size_t axis = 0; axis < axes; ++axis) {
    strides[axis] = stride;
    stride *= shape[axis];
  }
  std::string ordered(bytes.size(), '\0');
  std::vector<std::int64_t> index(axes, 0);
  std::int64_t source = 0;
  for (std::size_t target = 0; target < ordered.size(); target += size) {
    std::memcpy(ordered.data() + target, bytes.data() + source, size);
    for (std::size_t axis = axes; axis-- > 0;) {
      source += strides[axis];
      if (++index[axis] < shape[axis]) break;
      source -= strides[axis] * shape[axis];
      index[axis] = 0;
    }
  }
  return ordered;
}

}  // namespace

absl::StatusOr<Tensor> ReadNpy(std::istream& in) {
  const absl::StatusOr<std::string> text = ReadHeaderText(in);
  if (!text.ok()) return text.status();
  absl::StatusOr<NpyHeader> header = ParseNpyHeader(*text);
  if (!header.ok()) return header.status();
  const std::int64_t size = ElementSize(header->type);
  const absl::StatusOr<std::int64_t> count = CountElements(header->shape, size);
  if (!count.ok()) return count.status();
  absl::StatusOr<std::string> bytes = ReadExactly(in, *count * size, "the .npy array");
  if (!bytes.ok()) return bytes.status();
  if (header->fortran_order && header->shape.size() > 1) *bytes = FromFortranOrder(*bytes, header->shape, size);
  return Tensor::Create(header->type, std::move(header->shape), *std::move(bytes));
}

absl::StatusOr<Tensor> ReadNpyFile(const std::string& path) {
  absl::StatusOr<std::ifstream> in = OpenFile(path);
  if (!in.ok()) return in.status();
  absl::StatusOr<Tensor> tensor = ReadNpy(*in);
  if (!tensor.ok()) return Annotate(path, tensor.status());
  if (in->peek() != std::ifstream::traits_type::eof()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": more bytes follow the .npy array"));
  }
  return tensor;
}

absl::StatusOr<std::string> FormatNpy(const Tensor& tensor) {
  absl::StatusOr<std::string> contents = FormatNpyPrefix(tensor.type(), tensor.shape());
  if (contents.ok()) contents->append(tensor.bytes());
  return contents;
}

}  // namespace attend::client
