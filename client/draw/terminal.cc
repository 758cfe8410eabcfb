// DetectTerminal of heatmap.h.

#include "client/draw/heatmap.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"

namespace attend::client {
namespace {

constexpr int kMinColumns = 40;

std::string Env(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool Utf8Locale() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::string value = Env(name);
    if (value.empty()) continue;
    const std::string lower = absl::AsciiStrToLower(value);
    return absl::StrContains(lower, "utf-8") || absl::StrContains(lower, "utf8");
  }
  return false;
}

ColorDepth Color() {
  const std::string term = Env("TERM");
  if (!Env("NO_COLOR").empty() || term.empty() || term == "dumb") return ColorDepth::kNone;
  const std::string depth = Env("COLORTERM");
  if (depth == "truecolor" || depth == "24bit" || absl::StrContains(term, "direct")) return ColorDepth::kTrueColor;
  return absl::StrContains(term, "256color") ? ColorDepth::k256 : ColorDepth::kNone;
}

int Columns(int file_descriptor) {
  int columns = 0;
  winsize size{};
  if (!absl::SimpleAtoi(Env("COLUMNS"), &columns) && ioctl(file_descriptor, TIOCGWINSZ, &size) == 0) {
    columns = size.ws_col;
  }
  return columns > 0 ? std::max(columns, kMinColumns) : Terminal().columns;
}

}  // namespace

Terminal DetectTerminal(int file_descriptor) {
  Terminal terminal;
  terminal.is_tty = isatty(file_descriptor) == 1;
  if (!terminal.is_tty) return terminal;
  terminal.color = Color();
  terminal.utf8 = Utf8Locale();
  terminal.columns = Columns(file_descriptor);
  return terminal;
}

}  // namespace attend::client
