// What a program's command line consists of, and the texts made of it: the manual page, and the scripts with which
// shells complete commands, flags and values. All functions are pure.
#ifndef ATTEND_FORMATS_COMMAND_LINE_OUTLINE_H_
#define ATTEND_FORMATS_COMMAND_LINE_OUTLINE_H_

#include <CLI/App.hpp>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace attend::formats {

struct FlagOutline {
  std::vector<std::string> names;  // `-o`, `--format`; the word itself, as in `FILE`, for an argument without a flag.
  std::string help;
  std::string type;                  // Of the value: `TEXT`, `INT`, `FILE`; empty for a flag without one.
  std::vector<std::string> choices;  // Of the value, where there is a list of them.
  std::string variable;              // Of the environment, that sets it; may be empty.
  std::string default_value;         // May be empty.
  bool is_argument = false;          // Has no flag.

  bool takes_value() const { return !type.empty(); }
};

struct CommandOutline {
  std::string path;  // `layers upload`; empty for the program as a whole.
  std::string description;
  std::string footer;
  std::vector<std::string> commands;  // Below it.
  std::vector<FlagOutline> flags;     // Its own.
};

// The values that CLI11's IsMember allows, from the name of the option's type, which ends with what its checks say of
// themselves: `TEXT:{json,table}`.
std::vector<std::string> ChoicesOf(const CLI::Option& option);

// The program first, then its commands, each before those below it. What is hidden from the help is left out.
std::vector<CommandOutline> OutlineOf(const CLI::App& app);

// The source of the manual page in roff with the macros of man(7), for `section` (1: commands, 8: servers).
std::string ManualPage(const CLI::App& app, int section, const std::string& version);

inline constexpr absl::string_view kShells[] = {"bash", "zsh", "fish"};

// The script for `shell`: commands, flags, values where there is a list of them, else files. Flags of the program
// complete behind every command. REQUIRES: `shell` is one of kShells.
std::string CompletionScript(const CLI::App& app, absl::string_view shell);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_COMMAND_LINE_OUTLINE_H_
