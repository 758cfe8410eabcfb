#include "client/draw/draw_style.h"

#include <google/protobuf/stubs/common.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/io/stream.h"

namespace attend::client {
namespace {

constexpr std::int64_t kMaxLabelBytes = std::int64_t{4} << 20;

bool StartsCharacter(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

bool IsDrawable(const std::string& label) {
  for (const char byte : label) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(byte))) return false;
  }
  return google::protobuf::internal::IsStructurallyValidUTF8(label.data(), static_cast<int>(label.size()));
}

absl::Status CheckCount(const char* flag, std::size_t labels, std::int64_t tokens, const char* what) {
  if (labels == 0 || static_cast<std::int64_t>(labels) == tokens) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, " has ", labels, " lines, but there are ", tokens, " ", what, "; give one line per token"));
}

}  // namespace

absl::StatusOr<std::vector<std::string>> LoadLabels(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadSmallFile(path, kMaxLabelBytes);
  if (!text.ok()) return text.status();
  std::vector<std::string> labels = absl::StrSplit(absl::StripSuffix(*text, "\n"), '\n');
  for (std::size_t i = 0; i < labels.size(); ++i) {
    labels[i] = std::string(absl::StripSuffix(labels[i], "\r"));
    if (IsDrawable(labels[i])) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": line ", i + 1, " is not UTF-8 text, or holds a control character"));
  }
  return labels;
}

absl::Status FitLabels(std::int64_t queries, std::int64_t keys, DrawStyle* style) {
  absl::Status status = CheckCount("--labels", style->query_labels.size(), queries, "queries");
  if (!status.ok()) return status;
  if (style->key_labels.empty() && !style->query_labels.empty()) {
    if (queries != keys) {
      return absl::InvalidArgumentError(absl::StrCat("--labels names the ", queries, " queries; name the ", keys,
                                                     " keys with --key-labels FILE as well"));
    }
    style->key_labels = style->query_labels;
  }
  return CheckCount("--key-labels", style->key_labels.size(), keys, "keys");
}

std::string Shortened(const std::string& text, std::size_t width) {
  if (CountCharacters(text) <= width) return text;
  std::size_t end = 0;
  for (std::size_t characters = 0; end < text.size(); ++end) {
    if (StartsCharacter(text[end]) && ++characters == width) break;
  }
  return text.substr(0, end) + "…";
}

std::size_t CountCharacters(const std::string& text) {
  std::size_t count = 0;
  for (const char byte : text) count += StartsCharacter(byte) ? 1 : 0;
  return count;
}

}  // namespace attend::client
