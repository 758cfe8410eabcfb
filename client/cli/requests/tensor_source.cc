#include "client/cli/requests/tensor_source.h"

#include <iostream>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/io/csv.h"
#include "client/io/npy.h"
#include "client/io/npz.h"
#include "client/io/safetensors.h"
#include "client/io/stream.h"

namespace attend::client {
namespace {

constexpr absl::string_view kContainers[] = {".safetensors", ".npz"};

// The tensor that `source` names in a file of several.
template <typename Reader>
absl::StatusOr<Tensor> LoadFrom(const TensorSource& source) {
  absl::StatusOr<Reader> file = Reader::Open(source.path);
  if (!file.ok()) return file.status();
  if (!source.name.empty()) return file->Read(source.name);
  const std::vector<std::string> names = file->Names();
  if (names.size() == 1) return file->Read(names.front());
  return absl::InvalidArgumentError(absl::StrCat(source.path, " holds ", names.size(), " tensors; say which, as in ",
                                                 source.path, ":NAME. There are: ", absl::StrJoin(names, ", ")));
}

bool IsCsv(absl::string_view path) { return absl::EndsWith(path, ".csv"); }

// Whether float32 cannot hold all of its numbers.
bool LosesPrecision(ElementType type) { return ElementSize(type) >= 4 && type != ElementType::kFloat32; }

// Where a stream notes that a tensor was read from it.
int ReadMark() {
  static const int mark = std::ios_base::xalloc();
  return mark;
}

}  // namespace

TensorSource TensorSource::Parse(const std::string& text) {
  for (const absl::string_view extension : kContainers) {
    const std::size_t end = text.rfind(absl::StrCat(extension, ":"));
    if (end == std::string::npos) continue;
    const std::size_t colon = end + extension.size();
    return {text.substr(0, colon), text.substr(colon + 1)};
  }
  return {text, ""};
}

bool TensorSource::is_safetensors() const { return absl::EndsWith(path, ".safetensors"); }

absl::Status CheckStandardInputIsUsedUp() {
  if (std::cin.iword(ReadMark()) == 0) return absl::OkStatus();
  const bool is_used_up = std::cin.peek() == std::istream::traits_type::eof();
  if (ReadFailed(std::cin)) return absl::InvalidArgumentError("standard input: it cannot be read to its end");
  if (is_used_up) return absl::OkStatus();
  return absl::InvalidArgumentError("standard input: more bytes follow the .npy array that is read last");
}

absl::StatusOr<Tensor> LoadTensor(const std::string& source) {
  if (source == "-") {
    std::cin.iword(ReadMark()) = 1;
    absl::StatusOr<Tensor> tensor = ReadNpy(std::cin);
    return tensor.ok() ? std::move(tensor) : Annotate("standard input", tensor.status());
  }
  const TensorSource parsed = TensorSource::Parse(source);
  if (parsed.is_safetensors()) return LoadFrom<SafetensorsReader>(parsed);
  if (absl::EndsWith(parsed.path, ".npz")) return LoadFrom<NpzReader>(parsed);
  if (absl::EndsWith(parsed.path, ".npy")) return ReadNpyFile(parsed.path);
  if (IsCsv(parsed.path)) return ReadCsvFile(parsed.path);
  return absl::InvalidArgumentError(absl::StrCat(
      "'", source,
      "' is no file that attend reads: FILE.npy, FILE.npz:NAME, FILE.safetensors:NAME, FILE.csv, or - for a "
      ".npy array on standard input"));
}

std::string ElementName(std::int64_t index, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> place(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0; index /= shape[axis]) place[axis] = index % shape[axis];
  return absl::StrCat("element ", ShapeString(place));
}

absl::StatusOr<Tensor> Convert(Tensor tensor, ElementType type, const std::string& source) {
  const std::optional<std::int64_t> beyond = tensor.FirstBeyond(type);
  if (!beyond.has_value()) return std::move(tensor).ToFloat(type);
  const std::vector<std::int64_t>& shape = tensor.shape();
  const std::string place =
      IsCsv(source) ? absl::StrCat("line ", *beyond / shape.back() + 1, ", column ", *beyond % shape.back() + 1)
                    : ElementName(*beyond, shape);
  return absl::InvalidArgumentError(absl::StrFormat("%s: %s: %.9g is beyond the range of %s", source, place,
                                                    tensor.ToDoubles()[static_cast<std::size_t>(*beyond)],
                                                    ElementTypeName(type)));
}

absl::StatusOr<Tensor> LoadNumbers(const std::string& source) {
  absl::StatusOr<Tensor> tensor = LoadTensor(source);
  if (!tensor.ok() || tensor->type() != ElementType::kBool) return tensor;
  return absl::InvalidArgumentError(
      absl::StrCat(source, " is ", tensor->Describe(),
                   "; expected numbers; a boolean mask (true is visible) goes to --mask or --key-mask"));
}

absl::StatusOr<Tensor> LoadFloats(const std::string& source, bool allow_float64) {
  absl::StatusOr<Tensor> tensor = LoadNumbers(source);
  if (!tensor.ok()) return tensor.status();
  if (IsCsv(source)) return Convert(*std::move(tensor), ElementType::kFloat32, source);
  const bool is_double = tensor->type() == ElementType::kFloat64;
  if (IsFloatingPoint(tensor->type()) && (allow_float64 || !is_double)) return tensor;
  const ElementType given = tensor->type();
  tensor = Convert(*std::move(tensor), ElementType::kFloat32, source);
  if (tensor.ok() && LosesPrecision(given)) {
    std::cerr << "attend: note: " << source << " is " << ElementTypeName(given) << ", sent as float32\n";
  }
  return tensor;
}

absl::StatusOr<Tensor> LoadMask(const std::string& source) {
  absl::StatusOr<Tensor> tensor = LoadTensor(source);
  if (!tensor.ok() || tensor->type() == ElementType::kBool) return tensor;
  if (tensor->type() == ElementType::kUint8 || tensor->type() == ElementType::kInt8) {
    return Tensor::Create(ElementType::kBool, tensor->shape(), tensor->bytes());
  }
  return absl::InvalidArgumentError(absl::StrCat("the mask ", source, " is ", tensor->Describe(),
                                                 "; expected bool (true is visible); additive masks go to --bias"));
}

absl::StatusOr<std::vector<std::int64_t>> LoadIntegerList(const std::string& text) {
  std::vector<std::int64_t> values;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    std::int64_t value = 0;
    if (!absl::SimpleAtoi(part, &value)) {
      const absl::StatusOr<Tensor> tensor = LoadTensor(text);
      if (!tensor.ok()) return tensor.status();
      absl::StatusOr<std::vector<std::int64_t>> loaded = tensor->ToInt64();
      if (!loaded.ok()) return Annotate(text, loaded.status());
      if (tensor->shape().size() == 1 && !loaded->empty()) return loaded;
      // An empty list would count as a flag that was left out.
      return Annotate(text, absl::InvalidArgumentError(absl::StrCat(
                                "expected integers along one axis, at least one, got ", tensor->Describe())));
    }
    values.push_back(value);
  }
  return values;
}

absl::StatusOr<Tensor> LoadFloatList(const std::string& text, bool allow_float64) {
  std::vector<double> values;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    double value = 0;
    if (!absl::SimpleAtod(part, &value)) return LoadFloats(text, allow_float64);
    if (IsBeyondFloat64(part, value)) {
      return absl::InvalidArgumentError(absl::StrCat("'", part, "' is beyond the range of float64"));
    }
    values.push_back(value);
  }
  std::string bytes(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(double));
  absl::StatusOr<Tensor> tensor =
      Tensor::Create(ElementType::kFloat64, {static_cast<std::int64_t>(values.size())}, std::move(bytes));
  if (allow_float64 || !tensor.ok()) return tensor;
  return Convert(*std::move(tensor), ElementType::kFloat32, text);
}

}  // namespace attend::client
