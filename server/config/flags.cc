#include "server/config/flags.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "formats/command_line/empty_value.h"
#include "formats/command_line/nearest.h"
#include "formats/command_line/outline.h"
#include "formats/command_line/usage_error.h"
#include "server/base/protocol.h"
#include "server/config/config_file.h"

// POSIX declares it so.
// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables)
extern char** environ;

namespace attend::server {
namespace {

constexpr std::string_view kPrefix = "ATTEND_";
constexpr std::size_t kTypoDistance = 2;
constexpr char kProgram[] = "attend-server";
constexpr int kManualSection = 8;  // Servers.
constexpr char kConfigHelp[] = "File with `some-flag = value` lines";

std::string VersionLine() { return absl::StrCat(kProgram, " ", kVersion); }

// One command line with everything it fills. Two are made for each parse, see ParseFlags.
struct CommandLine {
  CommandLine() : app("Serves transformer attention over gRPC.", kProgram) {
    app.config_formatter(std::make_shared<ConfigFileFormat>());
    DeclareOptions(app, config);
    app.footer(
        "Every flag is also read from the environment (--some-flag as ATTEND_SOME_FLAG) and from the file that\n"
        "--config names (some-flag = value). A flag wins over the environment, that over the file.\n"
        "SIZE is a whole number of bytes, or has a unit, each 1024 times the one before: 64KiB, 256MB, 2G.\n"
        "DURATION has a unit, as in 500ms, 1.5s, 10m and 1h30m; 0 needs none, and inf has no end.\n\n"
        "Exit codes: 0 after a drain (SIGTERM, SIGINT), 1 it cannot serve, 2 a flag, a file or a layer is wrong.\n"
        "An error of the program while it serves ends it by SIGABRT, with a sentence on standard error.");
    app.set_version_flag("--version", VersionLine())->configurable(false);
    app.add_flag("--print-config", print_config, "Print the effective configuration as a file for --config, and exit")
        ->configurable(false);
    app.add_flag("--check-config", check_config, "Check the configuration and exit")->configurable(false);
    // For those who install this program; no part of the help.
    app.add_flag("--manual", manual)->configurable(false)->group("");
    app.add_option("--completions", completions)
        ->check(CLI::IsMember({"bash", "zsh", "fish"}))
        ->configurable(false)
        ->group("");
  }

  ServerConfig config;
  bool print_config = false;
  bool check_config = false;
  bool manual = false;
  std::string completions;  // The shell.
  CLI::App app;
};

// --some-flag -> ATTEND_SOME_FLAG.
std::string VariableName(const std::string& flag) {
  std::string name(kPrefix);
  for (const char c : flag) name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

bool HasVariable(const CLI::Option& option) {
  return option.get_configurable() || option.get_single_name() == "config";
}

std::vector<std::string> FindTypos(const CLI::App& app, const Environment& environment) {
  std::vector<std::string> known;
  for (const CLI::Option* option : app.get_options()) {
    if (HasVariable(*option)) known.push_back(VariableName(option->get_single_name()));
  }
  std::vector<std::string> warnings;
  for (const auto& [name, value] : environment) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    for (const std::string& candidate : known) {
      if (formats::EditDistance(name, candidate) > kTypoDistance) continue;
      warnings.push_back(absl::StrCat("the environment variable ", name, " is ignored; did you mean ", candidate, "?"));
      break;
    }
  }
  return warnings;
}

// `value` as the file has it: numbers bare, all else in quotes.
std::string FileValue(const std::string& value) {
  if (double number = 0; absl::SimpleAtod(value, &number) && std::isfinite(number)) return value;
  const char* quote = value.find('"') == std::string::npos ? "\"" : "'";
  return absl::StrCat(quote, value, quote);
}

// Every configurable flag with its value, in the form that --config reads. One without a value is left as a comment.
// Errors: INVALID_ARGUMENT for a value that has no such form.
absl::StatusOr<std::string> PrintConfig(const CLI::App& app) {
  std::string text;
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_configurable()) continue;
    std::vector<std::string> values = option->count() > 0
                                          ? option->reduced_results()
                                          : std::vector<std::string>(absl::StrSplit(option->get_default_str(), ','));
    for (std::string& value : values) {
      if (absl::StrContains(value, '"') && absl::StrContains(value, '\'')) {
        return absl::InvalidArgumentError(absl::StrCat("--print-config: ", option->get_single_name(), " is ", value,
                                                       ", which no file can say, because it has both kinds of quotes"));
      }
      value = FileValue(value);
    }
    // Given as nothing is not the same as not given.
    const bool empty = option->count() == 0 && values.size() == 1 && values[0] == FileValue("");
    const std::string joined = absl::StrJoin(values, ", ");
    absl::StrAppend(&text, empty ? "# " : "", option->get_single_name(), " = ",
                    values.size() > 1 ? absl::StrCat("[", joined, "]") : joined, "\n");
  }
  return text;
}

// The variables of flags that are not on the command line, as if they were.
std::vector<std::string> FromEnvironment(const CLI::App& app, const Environment& environment) {
  std::vector<std::string> arguments;
  for (const CLI::Option* option : app.get_options()) {
    if (!HasVariable(*option) || option->count() > 0) continue;
    const auto found = environment.find(VariableName(option->get_single_name()));
    if (found == environment.end() || found->second.empty()) continue;
    arguments.push_back(absl::StrCat("--", option->get_single_name(), "=", found->second));
  }
  return arguments;
}

// The file that --config names, on the command line or through its variable; empty when there is none.
std::string ConfigPath(const std::string& flag, const Environment& environment) {
  const auto variable = environment.find(VariableName("config"));
  return !flag.empty() || variable == environment.end() ? flag : variable->second;
}

// An empty value of any other flag is a mistake: it would turn off what --tls-client-ca or --principals are there for.
// Empty --anonymous-roles are none: they let nobody in.
absl::Status CheckValues(const CLI::App& app) {
  const std::string empty =
      formats::EmptyValue(app, {"--admin-listen", "--anonymous-roles", "--http-listen", "--data-dir"});
  return empty.empty() ? absl::OkStatus() : absl::InvalidArgumentError(empty);
}

// Parses; empty when the server should go on, else what to print before it exits.
absl::StatusOr<std::optional<std::string>> Parse(CLI::App& app, std::vector<std::string> arguments) {
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back.
  try {
    app.parse(std::move(arguments));
    return std::nullopt;
  } catch (const CLI::CallForHelp&) {
    return app.help();
  } catch (const CLI::CallForVersion&) {
    return absl::StrCat(VersionLine(), "\n");
  } catch (const CLI::FileError& error) {
    return absl::NotFoundError(absl::StrCat("--config: ", error.what()));
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(formats::UsageMessage(app, error));
  } catch (const CLI::Error& error) {
    return absl::InvalidArgumentError(error.what());
  }
}

}  // namespace

Environment ReadEnvironment() {
  Environment environment;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text(*variable);
    const std::size_t equals = text.find('=');
    if (equals == std::string_view::npos || text.substr(0, kPrefix.size()) != kPrefix) continue;
    environment.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return environment;
}

absl::StatusOr<ParsedFlags> ParseFlags(const std::vector<std::string>& arguments, const Environment& environment) {
  // CLI11 would let the file win over the environment. So the command line is read once to see which flags it lacks,
  // and once more with those from the environment added.
  const std::string unset = formats::EmptyAssignment(arguments);
  if (!unset.empty()) return absl::InvalidArgumentError(unset);
  CommandLine first;
  std::string config_path;
  first.app.add_option("--config", config_path, kConfigHelp);
  absl::StatusOr<std::optional<std::string>> output = Parse(first.app, arguments);
  if (!output.ok()) return output.status();
  if (output->has_value()) return ParsedFlags{.config = {}, .output = *output};
  if (absl::Status given = CheckValues(first.app); !given.ok()) return given;

  std::vector<std::string> merged = FromEnvironment(first.app, environment);
  merged.insert(merged.end(), arguments.begin(), arguments.end());
  CommandLine second;
  second.app.set_config("--config", "", kConfigHelp)->configurable(false);
  second.app.allow_config_extras(CLI::config_extras_mode::error);
  if (const std::string path = ConfigPath(config_path, environment); !path.empty()) {
    if (absl::Status keys = CheckConfigFile(second.app, path); !keys.ok()) return keys;
  }
  output = Parse(second.app, merged);
  if (!output.ok()) return output.status();
  if (absl::Status given = CheckValues(second.app); !given.ok()) return given;  // The file's.
  if (absl::Status valid = ValidateConfig(second.config); !valid.ok()) return valid;

  ParsedFlags parsed{.config = second.config,
                     .output = *output,
                     .check_only = second.check_config,
                     .warnings = FindTypos(first.app, environment)};
  if (second.print_config) {
    absl::StatusOr<std::string> printed = PrintConfig(second.app);
    if (!printed.ok()) return printed.status();
    parsed.output = *std::move(printed);
  }
  if (second.manual) parsed.output = formats::ManualPage(second.app, kManualSection, kVersion);
  if (!second.completions.empty()) parsed.output = formats::CompletionScript(second.app, second.completions);
  return parsed;
}

}  // namespace attend::server
