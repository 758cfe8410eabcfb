#include "client/io/csv.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/io/stream.h"

namespace attend::client {
namespace {

constexpr char kByteOrderMark[] = "\xef\xbb\xbf";  // Spreadsheets begin UTF-8 with it.
constexpr std::size_t kMostShown = 20;             // Letters of what is no number.

absl::Status AddRow(absl::string_view line, std::int64_t number, std::vector<double>* values) {
  std::int64_t column = 0;
  for (const absl::string_view cell : absl::StrSplit(line, ',')) {
    double value = 0;
    ++column;
    const bool is_number = absl::SimpleAtod(cell, &value);
    if (is_number && !IsBeyondFloat64(cell, value)) {
      values->push_back(value);
      continue;
    }
    const std::string shown = absl::CHexEscape(absl::StripAsciiWhitespace(cell).substr(0, kMostShown));
    return absl::InvalidArgumentError(
        absl::StrCat("line ", number, ", column ", column, ": '", shown, "' is ",
                     is_number ? "beyond the range of float64"
                               : "no number; expected numbers with commas between them, no headings"));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsBeyondFloat64(absl::string_view text, double value) {
  return std::isinf(value) && std::any_of(text.begin(), text.end(), absl::ascii_isdigit);
}

absl::StatusOr<Tensor> ReadCsv(std::istream& in) {
  std::vector<double> values;
  std::int64_t rows = 0, columns = 0, number = 0;
  bool ended = false;
  for (std::string text; std::getline(in, text);) {
    ++number;
    absl::string_view line = text;
    if (number == 1) absl::ConsumePrefix(&line, kByteOrderMark);
    line = absl::StripAsciiWhitespace(line);
    if (line.empty()) {
      ended = true;
      continue;
    }
    if (ended) return absl::InvalidArgumentError(absl::StrCat("line ", number, " follows an empty line"));
    const std::size_t before = values.size();
    if (absl::Status status = AddRow(line, number, &values); !status.ok()) return status;
    const auto added = static_cast<std::int64_t>(values.size() - before);
    if (rows++ == 0) columns = added;
    if (added != columns) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, " has ", added, " numbers, and the lines before it have ", columns));
    }
  }
  if (ReadFailed(in)) return absl::DataLossError(absl::StrCat("reading failed after line ", number));
  if (rows == 0) return absl::InvalidArgumentError("it has no numbers");
  std::string bytes(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(double));
  return Tensor::Create(ElementType::kFloat64, {rows, columns}, std::move(bytes));
}

absl::StatusOr<Tensor> ReadCsvFile(const std::string& path) {
  absl::StatusOr<std::ifstream> in = OpenFile(path);
  if (!in.ok()) return in.status();
  absl::StatusOr<Tensor> tensor = ReadCsv(*in);
  return tensor.ok() ? std::move(tensor) : Annotate(path, tensor.status());
}

}  // namespace attend::client
