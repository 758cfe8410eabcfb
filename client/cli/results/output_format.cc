#include "client/cli/results/output_format.h"

#include <CLI/Validators.hpp>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "client/io/npy.h"
#include "client/io/npz.h"
#include "client/io/safetensors.h"
#include "client/text/message_json.h"
#include "formats/files/file_writer.h"

namespace attend::client {
namespace {

constexpr const char* kAllForms[] = {"json", "table", "npy"};
constexpr char kFormatVariable[] = "ATTEND_FORMAT";

constexpr std::size_t kMaxShownKeys = 8;  // Of each query's top weights.
constexpr std::int64_t kEdge = 3;         // Rows and columns shown at each end of a large matrix.

// The positions shown of `count`, with -1 for what is left out between them.
std::vector<std::int64_t> Shown(std::int64_t count) {
  std::vector<std::int64_t> shown;
  for (std::int64_t i = 0; i < count; ++i) {
    if (count > 2 * kEdge + 1 && i == kEdge) {
      shown.push_back(-1);
      i = count - kEdge;
    }
    shown.push_back(i);
  }
  return shown;
}

// Where the matrix that is shown stands among others; empty when it is the only one.
std::string FormatPlace(const std::vector<std::int64_t>& shape) {
  if (shape.size() <= 2) return "";
  return absl::StrCat("  at [", absl::StrJoin(std::vector<int>(shape.size() - 2, 0), ", "), "]:\n");
}

// The first matrix of a tensor, or its only row.
std::string FormatMatrix(const Tensor& tensor) {
  const std::vector<double> values = tensor.ToDoubles();
  const std::vector<std::int64_t>& shape = tensor.shape();
  const std::int64_t cols = shape.empty() ? 1 : shape.back();
  const std::int64_t rows = shape.size() < 2 ? 1 : shape[shape.size() - 2];
  std::string out = FormatPlace(shape);
  for (const std::int64_t row : Shown(rows)) {
    absl::StrAppend(&out, "  ");
    for (const std::int64_t col : Shown(row < 0 ? 0 : cols)) {
      absl::StrAppend(&out, col < 0 ? "        ..." : absl::StrFormat(" %10.5g", values[row * cols + col]));
    }
    absl::StrAppend(&out, row < 0 ? "        ...\n" : "\n");
  }
  return out;
}

// The keys of one query and their weights, the largest first.
std::string FormatTopRow(absl::Span<const double> weights, absl::Span<const double> keys) {
  std::string line;
  for (std::size_t i = 0; i < std::min<std::size_t>(keys.size(), kMaxShownKeys); ++i) {
    if (keys[i] < 0) continue;
    const auto key = static_cast<std::int64_t>(keys[i]);
    absl::StrAppendFormat(&line, "  %-17s", absl::StrFormat("key %d (%.4g)", key, weights[i]));
  }
  absl::StripTrailingAsciiWhitespace(&line);
  return keys.size() > kMaxShownKeys ? line + "  ..." : line;
}

// The first matrix of the top weights.
std::string FormatTopWeights(const Tensor& weights, const Tensor& indices) {
  const std::vector<double> values = weights.ToDoubles(), keys = indices.ToDoubles();
  const std::vector<std::int64_t>& shape = weights.shape();
  const std::int64_t count = shape.back(), rows = shape[shape.size() - 2];
  std::string out = FormatPlace(shape);
  for (const std::int64_t row : Shown(rows)) {
    if (row < 0) {
      absl::StrAppend(&out, "        ...\n");
      continue;
    }
    const std::string line = FormatTopRow(absl::MakeConstSpan(values).subspan(row * count, count),
                                          absl::MakeConstSpan(keys).subspan(row * count, count));
    absl::StrAppendFormat(&out, "  query %4d:%s\n", row, line);
  }
  return out;
}

Json ElementJson(ElementType type, double value) {
  if (type == ElementType::kFloat64) return JsonNumber(value);
  return IsFloatingPoint(type) ? JsonNumber(static_cast<float>(value)) : Json(static_cast<std::int64_t>(value));
}

Json JsonTensor(const Tensor& tensor) {
  Json values = Json::array();
  for (const double value : tensor.ToDoubles()) values.push_back(ElementJson(tensor.type(), value));
  return {{"data_type", std::string(ElementTypeName(tensor.type()))},
          {"shape", tensor.shape()},
          {"values", std::move(values)}};
}

}  // namespace

void AddFormatFlag(CLI::App* command, const std::vector<std::string>& forms, std::string* format) {
  CLI::Option* option = command
                            ->add_option("-o,--format", *format,
                                         "Form on stdout: a table (default), json or, where a command has it, npy: "
                                         "bytes, which a terminal does not get")
                            ->check(CLI::IsMember(forms))
                            ->group("Results");
  // A form that some command has and this one does not was meant for the others, and must not keep this one from
  // working.
  const char* const variable = std::getenv(kFormatVariable);
  const auto has = [variable](const auto& all) {
    return std::find(std::begin(all), std::end(all), std::string(variable)) != std::end(all);
  };
  if (variable == nullptr || has(forms) || !has(kAllForms)) option->envname(kFormatVariable);
}

std::string FormatTable(const std::vector<NamedTensor>& tensors) {
  std::string out;
  const Tensor* const indices = Find(tensors, "top_attention_indices");
  for (const auto& [name, tensor] : tensors) {
    absl::StrAppend(&out, name, "  ", tensor.Describe(), "\n");
    if (tensor.num_elements() == 0 || (name == "top_attention_weights" && indices != nullptr)) continue;
    absl::StrAppend(&out, &tensor == indices ? FormatTopWeights(*Find(tensors, "top_attention_weights"), tensor)
                                             : FormatMatrix(tensor));
  }
  return out;
}

Json OutcomeJson(const std::vector<NamedTensor>& tensors, const Outcome& outcome) {
  Json json = {{"tensors", Json::object()}};
  for (const NamedTensor& entry : tensors) json["tensors"][entry.name] = JsonTensor(entry.tensor);
  json["round_trip_ms"] = JsonNumber(static_cast<float>(absl::ToDoubleMilliseconds(outcome.round_trip)));
  json["server_timing_ms"] = Json::object();
  for (const StageTime& stage : outcome.server_timing) {
    json["server_timing_ms"][stage.name] = JsonNumber(static_cast<float>(stage.milliseconds));
  }
  for (const auto& [name, value] : outcome.receipt) json["receipt"][name] = value;
  return json;
}

std::string FormatJson(const std::string& input, const std::vector<NamedTensor>& tensors, const Outcome& outcome) {
  Json json = {{"input", input}};
  json.update(OutcomeJson(tensors, outcome));
  return FormatLine(json);
}

std::optional<FileKind> KindOf(const std::string& path) {
  if (absl::EndsWith(path, ".safetensors")) return FileKind::kSafetensors;
  if (absl::EndsWith(path, ".npz")) return FileKind::kNpz;
  if (absl::EndsWith(path, ".npy") || absl::StartsWith(path, "/dev/")) return FileKind::kNpy;
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  const bool is_pipe = std::filesystem::exists(status) && !std::filesystem::is_regular_file(status);
  return is_pipe ? std::make_optional(FileKind::kNpy) : std::nullopt;
}

absl::StatusOr<std::string> FormatFile(FileKind kind, const std::vector<NamedTensor>& tensors) {
  if (kind == FileKind::kSafetensors) return FormatSafetensors(tensors);
  std::vector<NamedTensor> arrays = tensors;
  for (NamedTensor& entry : arrays) {
    if (entry.tensor.type() == ElementType::kBFloat16) entry.tensor = std::move(entry.tensor).ToFloat32();
  }
  return kind == FileKind::kNpz ? FormatNpz(arrays) : FormatNpy(arrays.front().tensor);
}

absl::Status CheckNoFolder(const std::string& flag, const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(flag, " ", path, " is a directory; name a file in it"));
}

absl::Status CheckOutputPath(const std::string& path, std::size_t count) {
  if (absl::Status status = CheckNoFolder("--output", path); !status.ok()) return status;
  const std::optional<FileKind> kind = KindOf(path);
  if (!kind.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("--output ", path, ": expected a .npy, .npz or .safetensors file"));
  }
  if (count == 1 || kind != FileKind::kNpy) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--output ", path, ": a .npy file holds one tensor, but ", count,
                                                 " are returned; use .npz or .safetensors"));
}

absl::Status WriteTensors(const std::string& path, const std::vector<NamedTensor>& tensors) {
  if (absl::Status status = CheckOutputPath(path, tensors.size()); !status.ok()) return status;
  const absl::StatusOr<std::string> contents = FormatFile(*KindOf(path), tensors);
  return contents.ok() ? WriteFile(path, *contents) : contents.status();
}

std::string FormatTiming(const Outcome& outcome) {
  std::string out =
      absl::StrFormat("round trip %.3f ms to %s\n", absl::ToDoubleMilliseconds(outcome.round_trip), outcome.peer);
  for (const StageTime& stage : outcome.server_timing) {
    absl::StrAppendFormat(&out, "  server %-8s %10.3f ms\n", stage.name, stage.milliseconds);
  }
  for (const auto& [name, value] : outcome.receipt) absl::StrAppendFormat(&out, "  %s %s\n", name, value);
  return out;
}

std::string NanWarning(const NamedTensor& entry) {
  const Tensor& tensor = entry.tensor;
  if (!IsFloatingPoint(tensor.type()) || tensor.num_elements() == 0) return "";
  // A log-sum-exp is one number for each query: its last axis counts rows already.
  const bool one_per_row = entry.name == "log_sum_exp" || tensor.shape().empty();
  const std::int64_t columns = one_per_row ? 1 : tensor.shape().back(), rows = tensor.num_elements() / columns;
  const auto row_bytes = static_cast<std::size_t>(columns * ElementSize(tensor.type()));
  std::int64_t rows_with_nan = 0, numbers = 0;     // Numbers that are NaN.
  for (std::int64_t row = 0; row < rows; ++row) {  // One at a time: as doubles, all would need twice the memory.
    const std::string bytes = tensor.bytes().substr(static_cast<std::size_t>(row) * row_bytes, row_bytes);
    const std::vector<double> values = Tensor::Create(tensor.type(), {columns}, bytes)->ToDoubles();
    const std::int64_t count = std::count_if(values.begin(), values.end(), [](double x) { return std::isnan(x); });
    numbers += count;
    rows_with_nan += count > 0 ? 1 : 0;
  }
  if (rows_with_nan == 0) return "";
  const std::string what = numbers == tensor.num_elements() ? "is nothing but NaN" : "holds NaN";
  return absl::StrCat(entry.name, " ", what, " (", rows_with_nan, " of ", rows, one_per_row ? " numbers" : " rows",
                      "); look for NaN and infinities in what was sent");
}

}  // namespace attend::client
