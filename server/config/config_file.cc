#include "server/config/config_file.h"

#include <algorithm>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "formats/command_line/nearest.h"

namespace attend::server {
namespace {

// CLI11 marks the beginning and the end of a [section] with items of these names.
bool IsSectionMark(const std::string& name) { return name == "++" || name == "--"; }

std::vector<std::string> KnownKeys(const CLI::App& app) {
  std::vector<std::string> keys;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_configurable()) keys.push_back(option->get_single_name());
  }
  return keys;
}

absl::Status UnknownKey(const std::string& path, const CLI::ConfigItem& item, const std::vector<std::string>& known) {
  const auto nearest = std::min_element(known.begin(), known.end(), [&item](const auto& a, const auto& b) {
    return formats::EditDistance(item.name, a) < formats::EditDistance(item.name, b);
  });
  return absl::InvalidArgumentError(absl::StrCat("--config: ", path, " sets '", item.fullname(),
                                                 "', which is no key of this server; the nearest that it knows is '",
                                                 *nearest, "' (--print-config lists all)"));
}

// `line` without the comment at its end. CLI11 knows three kinds of quotes.
std::string WithoutComment(const std::string& line) {
  char quote = '\0';
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quote == '\0' && c == '#') return line.substr(0, i);
    if (quote == '\0' && (c == '"' || c == '\'' || c == '`')) {
      quote = c;
    } else if (c == quote) {
      quote = '\0';
    }
  }
  return line;
}

}  // namespace

std::vector<CLI::ConfigItem> ConfigFileFormat::from_config(std::istream& input) const {
  std::stringstream text;
  for (std::string line; std::getline(input, line);) text << WithoutComment(line) << "\n";
  if (input.bad()) throw CLI::ConfigError("reading it failed");  // As CLI11 says it of what it cannot read.
  CLI::ConfigTOML format;
  format.comment('\0');  // No line has one any more.
  return format.from_config(text);
}

absl::Status CheckConfigFile(const CLI::App& app, const std::string& path) {
  const std::vector<std::string> known = KnownKeys(app);
  try {
    for (const CLI::ConfigItem& item : app.get_config_formatter_base()->from_file(path)) {
      const std::string key = item.fullname();
      if (IsSectionMark(item.name) || std::find(known.begin(), known.end(), key) != known.end()) continue;
      return UnknownKey(path, item, known);
    }
  } catch (const CLI::FileError& error) {
    return absl::NotFoundError(absl::StrCat("--config: ", error.what()));
  } catch (const CLI::Error& error) {
    return absl::InvalidArgumentError(absl::StrCat("--config: ", path, ": ", error.what()));
  }
  return absl::OkStatus();
}

}  // namespace attend::server
