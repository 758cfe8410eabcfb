#include "client/lib/server_timing.h"

#include <cmath>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace attend::client {
namespace {

// `header` cut at each `separator` that is not inside a quoted string.
std::vector<absl::string_view> SplitUnquoted(absl::string_view text, char separator) {
  std::vector<absl::string_view> parts;
  bool quoted = false;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (quoted && text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      quoted = !quoted;
    } else if (text[i] == separator && !quoted) {
      parts.push_back(text.substr(begin, i - begin));
      begin = i + 1;
    }
  }
  parts.push_back(text.substr(begin));
  return parts;
}

// The value of a parameter `dur=VALUE`, or nothing when it is another parameter or not a duration.
std::optional<double> Duration(absl::string_view parameter) {
  const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(parameter, absl::MaxSplits('=', 1));
  if (!absl::EqualsIgnoreCase(absl::StripAsciiWhitespace(parts.first), "dur")) return std::nullopt;
  absl::string_view value = absl::StripAsciiWhitespace(parts.second);
  if (absl::ConsumePrefix(&value, "\"")) absl::ConsumeSuffix(&value, "\"");
  double duration = 0;
  if (!absl::SimpleAtod(value, &duration) || !std::isfinite(duration) || duration < 0) return std::nullopt;
  return duration;
}

}  // namespace

std::vector<StageTime> ParseServerTiming(std::string_view header) {
  std::vector<StageTime> stages;
  for (const absl::string_view metric : SplitUnquoted({header.data(), header.size()}, ',')) {
    const std::vector<absl::string_view> parts = SplitUnquoted(metric, ';');
    const absl::string_view name = absl::StripAsciiWhitespace(parts.front());
    if (name.empty()) continue;
    for (std::size_t i = 1; i < parts.size(); ++i) {
      const std::optional<double> duration = Duration(parts[i]);
      if (!duration.has_value()) continue;
      stages.push_back({std::string(name), *duration});
      break;
    }
  }
  return stages;
}

}  // namespace attend::client
