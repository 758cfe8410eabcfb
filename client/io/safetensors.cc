#include "client/io/safetensors.h"

#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/io/stream.h"

namespace attend::client {
namespace {

constexpr std::int64_t kLengthBytes = 8;
constexpr std::size_t kAlignment = 8;

// The format's name of an element type.
const char* TypeName(ElementType type) {
  switch (type) {
    case ElementType::kFloat32: return "F32";
    case ElementType::kFloat64: return "F64";
    case ElementType::kFloat16: return "F16";
    case ElementType::kBFloat16: return "BF16";
    case ElementType::kBool: return "BOOL";
    case ElementType::kInt8: return "I8";
    case ElementType::kInt16: return "I16";
    case ElementType::kInt32: return "I32";
    case ElementType::kInt64: return "I64";
    case ElementType::kUint8: return "U8";
    case ElementType::kUint16: return "U16";
    case ElementType::kUint32: return "U32";
    case ElementType::kUint64: return "U64";
  }
  return "";
}

// The length of the header, checked against the file's own size and the limit.
absl::StatusOr<std::int64_t> ReadHeaderLength(std::istream& in, std::int64_t file_bytes) {
  const absl::StatusOr<std::string> bytes = ReadExactly(in, kLengthBytes, "the .safetensors header length");
  if (!bytes.ok()) return bytes.status();
  std::uint64_t length = 0;
  for (int i = kLengthBytes; i-- > 0;) length = length << 8 | static_cast<unsigned char>((*bytes)[i]);
  if (length > static_cast<std::uint64_t>(kMaxSafetensorsHeaderBytes)) {
    return absl::InvalidArgumentError(absl::StrCat("the .safetensors header claims ", length, " bytes; at most ",
                                                   kMaxSafetensorsHeaderBytes, " are read"));
  }
  if (static_cast<std::int64_t>(length) > file_bytes - kLengthBytes) {
    return absl::DataLossError(absl::StrCat("the .safetensors header claims ", length, " bytes, but only ",
                                            file_bytes - kLengthBytes, " follow"));
  }
  return static_cast<std::int64_t>(length);
}

}  // namespace

absl::StatusOr<SafetensorsReader> SafetensorsReader::Open(const std::string& path) {
  absl::StatusOr<std::ifstream> in = OpenFile(path);
  if (!in.ok()) return in.status();
  return Create(std::make_unique<std::ifstream>(*std::move(in)), path);
}

absl::StatusOr<SafetensorsReader> SafetensorsReader::Create(std::unique_ptr<std::istream> in, const std::string& name) {
  in->seekg(0, std::ios::end);
  const std::int64_t file_bytes = in->tellg();
  in->seekg(0, std::ios::beg);
  if (!*in || file_bytes < 0)
    return absl::InvalidArgumentError(absl::StrCat(name, ": not a file that can be seeked in"));
  const absl::StatusOr<std::int64_t> length = ReadHeaderLength(*in, file_bytes);
  if (!length.ok()) return Annotate(name, length.status());
  const absl::StatusOr<std::string> text = ReadExactly(*in, *length, "the .safetensors header");
  if (!text.ok()) return Annotate(name, text.status());
  const std::int64_t data_begin = kLengthBytes + *length;
  absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(*text, file_bytes - data_begin);
  if (!header.ok()) return Annotate(name, header.status());
  return SafetensorsReader(std::move(in), name, data_begin, *std::move(header));
}

absl::StatusOr<Tensor> SafetensorsReader::Read(const std::string& name) {
  const auto found = header_.tensors.find(name);
  if (found == header_.tensors.end()) {
    return absl::NotFoundError(
        absl::StrCat(name_, ": there is no tensor '", name, "'; there are: ", absl::StrJoin(Names(), ", ")));
  }
  const SafetensorsEntry& entry = found->second;
  if (!entry.type.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name_, ": tensor '", name, "' has dtype ", entry.type_name, ", which is not supported"));
  }
  in_->clear();
  in_->seekg(data_begin_ + entry.begin, std::ios::beg);
  absl::StatusOr<std::string> bytes = ReadExactly(*in_, entry.end - entry.begin, absl::StrCat("tensor '", name, "'"));
  if (!bytes.ok()) return Annotate(name_, bytes.status());
  return Tensor::Create(*entry.type, entry.shape, *std::move(bytes));
}

std::vector<std::string> SafetensorsReader::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : header_.tensors) names.push_back(name);
  return names;
}

absl::StatusOr<std::string> FormatSafetensors(absl::Span<const NamedTensor> tensors) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  std::int64_t position = 0;
  for (const NamedTensor& entry : tensors) {
    if (entry.name == "__metadata__" || json.contains(entry.name)) {
      return absl::InvalidArgumentError(absl::StrCat("a tensor cannot be named '", entry.name, "' here"));
    }
    const std::int64_t end = position + static_cast<std::int64_t>(entry.tensor.bytes().size());
    json[entry.name] = {
        {"dtype", TypeName(entry.tensor.type())}, {"shape", entry.tensor.shape()}, {"data_offsets", {position, end}}};
    position = end;
  }
  // `replace` instead of an exception: a name that is not UTF-8 is found by comparing.
  std::string header = json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  if (header.find("\xEF\xBF\xBD") != std::string::npos) {
    return absl::InvalidArgumentError("a tensor's name is not UTF-8");
  }
  header.append((kAlignment - header.size() % kAlignment) % kAlignment, ' ');
  std::string contents;
  contents.reserve(kLengthBytes + header.size() + position);
  for (int i = 0; i < kLengthBytes; ++i) contents.push_back(static_cast<char>(header.size() >> (8 * i) & 0xff));
  contents.append(header);
  for (const NamedTensor& entry : tensors) contents.append(entry.tensor.bytes());
  return contents;
}

}  // namespace attend::client
