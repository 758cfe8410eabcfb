// How a drawing of attention weights names its tokens and chooses its colours.
#ifndef ATTEND_CLIENT_DRAW_DRAW_STYLE_H_
#define ATTEND_CLIENT_DRAW_DRAW_STYLE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attend::client {

struct DrawStyle {
  std::vector<std::string> query_labels;  // One per query, or none: their numbers.
  std::vector<std::string> key_labels;
  bool log_scale = false;
  std::string font = "sans-serif";  // Of a picture; a family as fontconfig knows it.
};

// The lines of a text file, one label each. Errors: NOT_FOUND; INVALID_ARGUMENT for a file of more than 4 MiB and for a
// line that is not UTF-8 or holds a control character.
absl::StatusOr<std::vector<std::string>> LoadLabels(const std::string& path);

// Fits the labels to a map: those of the queries name the keys too where `style` has none for keys. Errors:
// INVALID_ARGUMENT when there are more or fewer labels than tokens.
absl::Status FitLabels(std::int64_t queries, std::int64_t keys, DrawStyle* style);

// The first `width` characters, the last of them `…` where there are more. REQUIRES: UTF-8.
std::string Shortened(const std::string& text, std::size_t width);

// The number of characters. REQUIRES: UTF-8.
std::size_t CountCharacters(const std::string& text);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_DRAW_DRAW_STYLE_H_
