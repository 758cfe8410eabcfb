#include "formats/command_line/outline.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace attend::formats {

std::vector<std::string> ChoicesOf(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const std::size_t begin = type.find('{'), end = type.rfind('}');
  if (begin == std::string::npos || end == std::string::npos) return {};
  return absl::StrSplit(type.substr(begin + 1, end - begin - 1), ',');
}

namespace {

FlagOutline OutlineOf(const CLI::Option& option) {
  FlagOutline flag{
      .help = option.get_description(), .variable = option.get_envname(), .default_value = option.get_default_str()};
  for (const std::string& name : option.get_snames()) flag.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) flag.names.push_back("--" + name);
  flag.is_argument = flag.names.empty();
  if (flag.is_argument) flag.names.push_back(option.get_name());
  if (option.get_items_expected_max() == 0) return flag;
  const std::string type = option.get_type_name();
  flag.choices = ChoicesOf(option);
  flag.type = type.substr(0, type.find_first_of(": "));
  if (flag.type.empty()) flag.type = "VALUE";
  return flag;
}

void Append(const CLI::App& app, const std::string& path, std::vector<CommandOutline>* all) {
  CommandOutline outline{.path = path, .description = app.get_description(), .footer = app.get_footer()};
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_group().empty()) outline.flags.push_back(OutlineOf(*option));
  }
  const std::vector<const CLI::App*> below =
      app.get_subcommands([](const CLI::App* each) { return !each->get_group().empty(); });
  for (const CLI::App* command : below) outline.commands.push_back(command->get_name());
  all->push_back(std::move(outline));
  for (const CLI::App* command : below)
    Append(*command, absl::StrCat(path, path.empty() ? "" : " ", command->get_name()), all);
}

}  // namespace

std::vector<CommandOutline> OutlineOf(const CLI::App& app) {
  std::vector<CommandOutline> all;
  Append(app, "", &all);
  return all;
}

}  // namespace attend::formats
