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

constexpr std::size_t kAlignment = 8;

struct TypeName {
  const char* name;
  ElementType type;
};
constexpr TypeName kTypeNames[] = {
    {"F32", ElementType::kFloat32},   {"F64", ElementType::kFloat64}, {"F16", ElementType::kFloat16},
    {"BF16", ElementType::kBFloat16}, {"BOOL", ElementType::kBool},   {"I8", ElementType::kInt8},
    {"I16", ElementType::kInt16},     {"I32", ElementType::kInt32},   {"I64", ElementType::kInt64},
    {"U8", ElementType::kUint8},      {"U16", ElementType::kUint16},  {"U32", ElementType::kUint32},
    {"U64", ElementType::kUint64},
};

// The format's name of an element type.
const char* FindTypeName(ElementType type) {
  for (const TypeName& entry : kTypeNames) {
    if (entry.type == type) return entry.name;
  }
  return "";
}

// The length of the header, checked against the file's own size and the limit.
absl::StatusOr<std::int64_t> ReadHeaderLength(std::istream& in, std::int64_t file_bytes) {
  const absl::StatusOr<std::string> bytes = ReadExactly(in, kSafetensorsLengthBytes, "the .safetensors header length");
  if (!bytes.ok()) return bytes.status();
  return ParseSafetensorsLength(*bytes, file_bytes);
}

}  // namespace

std::optional<ElementType> FindElementType(std::string_view dtype) {
  for (const TypeName& entry : kTypeNames) {
    if (entry.name == dtype) return entry.type;
  }
  return std::nullopt;
}

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
  const std::int64_t data_begin = kSafetensorsLengthBytes + *length;
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
  const std::optional<ElementType> type = FindElementType(entry.dtype);
  if (!type.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name_, ": tensor '", name, "' has dtype ", entry.dtype, ", which is not supported"));
  }
  in_->clear();
  in_->seekg(data_begin_ + entry.begin, std::ios::beg);
  absl::StatusOr<std::string> bytes = ReadExactly(*in_, entry.end - entry.begin, absl::StrCat("tensor '", name, "'"));
  if (!bytes.ok()) return Annotate(name_, bytes.status());
  return Tensor::Create(*type, entry.shape, *std::move(bytes));
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
    json[entry.name] = {{"dtype", FindTypeName(entry.tensor.type())},
                        {"shape", entry.tensor.shape()},
                        {"data_offsets", {position, end}}};
    position = end;
  }
  // `replace` instead of an exception: a name that is not UTF-8 is found by comparing.
  std::string header = json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  if (header.find("\xEF\xBF\xBD") != std::string::npos) {
    return absl::InvalidArgumentError("a tensor's name is not UTF-8");
  }
  header.append((kAlignment - header.size() % kAlignment) % kAlignment, ' ');
  std::string contents;
  contents.reserve(kSafetensorsLengthBytes + header.size() + position);
  for (int i = 0; i < kSafetensorsLengthBytes; ++i)
    contents.push_back(static_cast<char>(header.size() >> (8 * i) & 0xff));
  contents.append(header);
  for (const NamedTensor& entry : tensors) contents.append(entry.tensor.bytes());
  return contents;
}

}  // namespace attend::client
