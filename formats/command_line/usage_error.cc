#include "formats/command_line/usage_error.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "formats/command_line/nearest.h"
#include "formats/command_line/outline.h"

namespace attend::formats {
namespace {

// The command that was parsed last, and those above it, whose flags it also takes.
std::vector<const CLI::App*> Chain(const CLI::App& app) {
  std::vector<const CLI::App*> chain = {&app};
  while (!chain.back()->get_subcommands().empty()) chain.push_back(chain.back()->get_subcommands().front());
  return chain;
}

bool IsHidden(const CLI::Option* option) { return option->get_group().empty(); }

// The flags that the user may write at the end of `chain`.
std::vector<std::string> Flags(const std::vector<const CLI::App*>& chain) {
  std::vector<std::string> flags;
  for (const CLI::App* app : chain) {
    for (const CLI::Option* option : app->get_options()) {
      if (IsHidden(option)) continue;
      for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
    }
  }
  return flags;
}

std::vector<std::string> Commands(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App* each) { return !each->get_group().empty(); })) {
    names.push_back(command->get_name());
  }
  return names;
}

bool IsFlag(const std::string& argument) { return argument.size() > 1 && argument.front() == '-'; }

// ` of attend layers`; nothing for the program as a whole, whose name stands before the sentence anyway.
std::string Of(const CLI::App& app) { return Chain(app).size() == 1 ? "" : absl::StrCat(" of ", CommandPath(app)); }

std::string SeeHelp(const CLI::App& app) { return absl::StrCat("; see ", CommandPath(app), " --help"); }

// `--format json` for `--json`; empty when no flag has such a value.
std::string FlagWithValue(const CLI::App& app, absl::string_view flag) {
  const std::string value(absl::StripPrefix(flag, "--"));
  for (const CLI::App* level : Chain(app)) {
    for (const CLI::Option* option : level->get_options()) {
      const std::vector<std::string> choices = ChoicesOf(*option);
      if (IsHidden(option) || std::find(choices.begin(), choices.end(), value) == choices.end()) continue;
      return absl::StrCat(option->get_name(), " ", value);
    }
  }
  return "";
}

// A flag that the last command needs and has not got; null when there is none.
const CLI::Option* MissingFlag(const CLI::App& app, absl::string_view beginning = "") {
  for (const CLI::Option* option : Chain(app).back()->get_options()) {
    if (option->get_required() && option->count() == 0 && absl::StartsWith(option->get_name(), beginning))
      return option;
  }
  return nullptr;
}

std::string UnknownFlag(const CLI::App& app, const std::string& argument) {
  const std::string flag = argument.substr(0, argument.find('='));
  std::string meant = DidYouMean(flag, Flags(Chain(app)));
  if (const CLI::Option* missing = flag.size() == 2 ? MissingFlag(app, "-" + flag) : nullptr; missing != nullptr)
    meant = absl::StrCat("; did you mean ", missing->get_name(), "?");  // `-q` for `--query`.
  if (const std::string value = FlagWithValue(app, flag); !value.empty())
    meant = absl::StrCat("; did you mean ", value, "?");
  return absl::StrCat("there is no flag ", flag, Of(app), meant.empty() ? SeeHelp(app) : meant);
}

std::string UnknownCommand(const CLI::App& app, const std::string& word) {
  const std::vector<std::string> known = Commands(*Chain(app).back());
  const std::string meant = DidYouMean(word, known);
  return absl::StrCat("there is no command '", word, "'", Of(app),
                      meant.empty() ? absl::StrCat("; there are ", absl::StrJoin(known, ", ")) : meant);
}

// The flags that were given and take no value: `--causal and --weights`; empty when there is none.
std::string GivenSwitches(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* level : Chain(app)) {
    for (const CLI::Option* option : level->get_options()) {
      if (option->count() > 0 && option->get_items_expected_max() == 0) names.push_back(option->get_name());
    }
  }
  return absl::StrJoin(names, " and ");
}

// An argument that no flag takes. Whoever writes one often means the flag that is missing, or gives a value to a flag
// without one.
std::string ExtraArgument(const CLI::App& app, const std::string& argument) {
  if (const CLI::Option* missing = MissingFlag(app); missing != nullptr) {
    return absl::StrCat("'", argument, "' belongs to no flag of ", CommandPath(app), "; did you mean ",
                        missing->get_name(), " ", argument, "?");
  }
  const std::string switches = GivenSwitches(app);
  const std::string why = switches.empty()                       ? SeeHelp(app)
                          : absl::StrContains(switches, " and ") ? absl::StrCat("; ", switches, " take no value")
                                                                 : absl::StrCat("; ", switches, " takes no value");
  return absl::StrCat("'", argument, "' belongs to no flag of ", CommandPath(app), why);
}

// The sentence for arguments that nothing takes; empty when there is none. One without a flag may be the value of a
// flag whose own error says more; `may_be_extra` says that there is no such error.
std::string Leftovers(const CLI::App& app, bool may_be_extra) {
  if (std::string said = WordInPlaceOfCommand(app); !said.empty()) return said;
  const std::vector<std::string> left = app.remaining(/*recurse=*/true);
  if (left.empty()) return "";
  const auto flag = std::find_if(left.begin(), left.end(), IsFlag);
  if (flag != left.end()) return UnknownFlag(app, *flag);
  return may_be_extra ? ExtraArgument(app, left.front()) : "";
}

const CLI::Option* FindOption(const CLI::App& app, const std::string& name) {
  for (const CLI::App* level : Chain(app)) {
    if (const CLI::Option* option = level->get_option_no_throw(name); option != nullptr) return option;
  }
  return nullptr;
}

std::string Missing(const CLI::App& app, const std::string& name) {
  if (name == "A subcommand") {
    return absl::StrCat("a command", Of(app), " is missing: ", absl::StrJoin(Commands(*Chain(app).back()), ", "),
                        SeeHelp(app));
  }
  return absl::StrCat(CommandPath(app), " needs ", IsFlag(name) ? "" : "a ", name, SeeHelp(app));
}

// `text` is `--num-heads = abc`.
std::string NotConverted(const CLI::App& app, absl::string_view text) {
  const std::string name(text.substr(0, text.find(' ')));
  const CLI::Option* option = FindOption(app, name);
  const std::string type = option == nullptr ? "" : option->get_type_name();
  return absl::StrCat(absl::StrReplaceAll(text, {{" = ", " "}}), ": expected ",
                      absl::StrContains(type, "INT")     ? "an integer"
                      : absl::StrContains(type, "FLOAT") ? "a number"
                                                         : "another value");
}

// `text` begins with the flag's name.
std::string WrongCount(const CLI::App& app, const std::string& text) {
  const std::string name = text.substr(0, text.find_first_of(": "));
  const CLI::Option* option = FindOption(app, name);
  if (option != nullptr && option->count() > 1) return absl::StrCat(name, " is given more than once; give it once");
  return absl::StrCat(name,
                      option != nullptr && option->get_items_expected_max() == 0 ? " takes no value" : " needs a value",
                      SeeHelp(app));
}

// What stands in `text` before and behind `word`, which it holds.
std::pair<std::string, std::string> Around(absl::string_view text, absl::string_view word) {
  return absl::StrSplit(text, absl::MaxSplits(word, 1));
}

// `text` is what CLI11's checks and ours say: `--threads: Value 0 not in range 1 to 4096`,
// `--max-request-bytes: Value lots not a size`, `--format: jsn not in {json,table}`.
std::string WrongValue(const std::string& text) {
  if (absl::StrContains(text, " not in range ")) {
    const auto [start, range] = Around(text, " not in range ");
    const auto [flag, value] = Around(start, ": Value ");
    const auto [first, last] = Around(range, " to ");
    double least = 0, most = 0;
    if (!absl::SimpleAtod(first, &least) || !absl::SimpleAtod(last, &most)) return text;
    const bool is_open = most >= std::numeric_limits<double>::max();
    return absl::StrCat(flag, " ", value, ": expected ",
                        is_open ? "a positive number" : absl::StrCat(least, " to ", most));
  }
  for (const auto& [what, expected] : {std::pair(" not an integer", "an integer"),
                                       std::pair(" not a size", "a size, as in 500000, 64KiB, 256MiB or 2GiB")}) {
    if (!absl::EndsWith(text, what)) continue;
    const auto [flag, value] = Around(absl::StripSuffix(text, what), ": Value ");
    return absl::StrCat(flag, " ", value, ": expected ", expected);
  }
  if (absl::StrContains(text, " not in {")) {
    const auto [start, set] = Around(text, " not in {");
    const std::vector<std::string> words = absl::StrSplit(absl::StripSuffix(set, "}"), ',');
    const auto [flag, value] = Around(start, ": ");
    return absl::StrCat(flag, " ", value, ": expected ", absl::StrJoin(words, ", "), DidYouMean(value, words));
  }
  return text;
}

}  // namespace

std::string CommandPath(const CLI::App& app) {
  return absl::StrJoin(Chain(app), " ", [](std::string* out, const CLI::App* each) { out->append(each->get_name()); });
}

std::string WordInPlaceOfCommand(const CLI::App& app) {
  const std::vector<std::string> left = app.remaining(/*recurse=*/true);
  const bool lacks_command = Chain(app).back()->get_require_subcommand_min() > 0;
  return lacks_command && !left.empty() && !IsFlag(left.front()) ? UnknownCommand(app, left.front()) : "";
}

std::string UsageMessage(const CLI::App& app, const CLI::ParseError& error) {
  const std::string text = error.what(), kind = error.get_name();
  const bool is_extra = error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ExtrasError);
  if (std::string said = Leftovers(app, is_extra || kind == "RequiredError"); !said.empty()) return said;
  if (kind == "RequiredError") return Missing(app, Around(text, " is required").first);
  if (kind == "RequiresError") {
    const auto [one, other] = Around(text, " requires ");
    return absl::StrCat(one, " goes with ", other, "; give both");
  }
  if (kind == "ExcludesError") {
    const auto [one, other] = Around(text, " excludes ");
    return absl::StrCat(one, " and ", other, " exclude each other; give one of them");
  }
  if (kind == "ArgumentMismatch") return WrongCount(app, text);
  if (kind == "ConversionError" && absl::StartsWith(text, "Could not convert: ")) {
    return NotConverted(app, Around(text, "convert: ").second);
  }
  if (kind == "ConversionError") return absl::StrCat(Around(text, ":").first, " takes no value");
  return WrongValue(text);
}

}  // namespace attend::formats
