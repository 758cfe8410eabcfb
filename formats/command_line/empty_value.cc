#include "formats/command_line/empty_value.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace attend::formats {
namespace {

std::string Sentence(const std::string& name) {
  return absl::StrCat(name, " has an empty value; give one, or leave ", name, " out");
}

bool HasEmptyValue(const CLI::Option& option) {
  const std::vector<std::string>& values = option.results();
  return std::any_of(values.begin(), values.end(), [](const std::string& value) { return value.empty(); });
}

}  // namespace

std::string EmptyValue(const CLI::App& app, const std::set<std::string>& may_be_empty) {
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = option->get_name();
    if (HasEmptyValue(*option) && may_be_empty.count(name) == 0) return Sentence(name);
  }
  for (const CLI::App* command : app.get_subcommands()) {
    if (std::string found = EmptyValue(*command, may_be_empty); !found.empty()) return found;
  }
  return "";
}

std::string EmptyAssignment(const std::vector<std::string>& arguments) {
  for (const std::string& argument : arguments) {
    if (argument == "--") return "";  // What follows are no flags.
    if (absl::StartsWith(argument, "--") && argument.find('=') == argument.size() - 1) {
      return Sentence(argument.substr(0, argument.size() - 1));
    }
  }
  return "";
}

}  // namespace attend::formats
