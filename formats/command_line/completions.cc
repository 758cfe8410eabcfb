#include "formats/command_line/outline.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "absl/strings/substitute.h"

namespace attend::formats {
namespace {

// `_attend_server`: a name that shells take for a function.
std::string FunctionName(const std::string& program) { return "_" + absl::StrReplaceAll(program, {{"-", "_"}}); }

// Of the flags of `command`, those of the program behind them.
std::vector<FlagOutline> FlagsBehind(const std::vector<CommandOutline>& all, const CommandOutline& command) {
  std::vector<FlagOutline> flags = command.flags;
  if (!command.path.empty()) flags.insert(flags.end(), all[0].flags.begin(), all[0].flags.end());
  return flags;
}

// Patterns of a `case` over "$command $word" that say which words are commands.
std::string CommandPatterns(const std::vector<CommandOutline>& all) {
  std::vector<std::string> patterns;
  for (const CommandOutline& outline : all) {
    for (const std::string& name : outline.commands)
      patterns.push_back(absl::StrCat("'", outline.path, " ", name, "'"));
  }
  return patterns.empty() ? "''" : absl::StrJoin(patterns, "|");
}

// How a shell of the Bourne family offers words and files: $0 stands for the words.
struct Offer {
  absl::string_view words;
  absl::string_view files;
};

// The branches over "$command:$previous" for flags that take a value. An option that takes one of a list is offered the
// list, any other value files.
std::string ValueBranches(const std::vector<CommandOutline>& all, const Offer& offer) {
  std::string out;
  for (const CommandOutline& outline : all) {
    for (const FlagOutline& flag : FlagsBehind(all, outline)) {
      if (!flag.takes_value() || flag.is_argument) continue;
      std::vector<std::string> patterns;
      for (const std::string& name : flag.names) patterns.push_back(absl::StrCat("'", outline.path, ":", name, "'"));
      const std::string action = flag.choices.empty() ? std::string(offer.files)
                                                      : absl::Substitute(offer.words, absl::StrJoin(flag.choices, " "));
      absl::StrAppend(&out, "    ", absl::StrJoin(patterns, "|"), ") ", action, "; return ;;\n");
    }
  }
  return out;
}

// The branches over "$command" with its commands and flags.
std::string WordBranches(const std::vector<CommandOutline>& all, const Offer& offer) {
  std::string out;
  for (const CommandOutline& outline : all) {
    std::vector<std::string> words = outline.commands;
    for (const FlagOutline& flag : FlagsBehind(all, outline)) {
      for (const std::string& name : flag.names) {
        if (absl::StartsWith(name, "--")) words.push_back(name);
      }
    }
    absl::StrAppend(&out, "    '", outline.path, "') ", absl::Substitute(offer.words, absl::StrJoin(words, " ")),
                    " ;;\n");
  }
  return out;
}

std::string Bash(const std::string& program, const std::vector<CommandOutline>& all) {
  const Offer offer{"mapfile -t COMPREPLY < <(compgen -W '$0' -- \"$$current\")", ":"};
  return absl::StrReplaceAll(R"(# Completions of @PROGRAM@ for bash; made by @PROGRAM@ itself.
@FUNCTION@() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command= i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$command ${COMP_WORDS[i]}" in
    @COMMANDS@) command="${command:+$command }${COMP_WORDS[i]}" ;;
    esac
  done
  case "$command:$previous" in
@VALUES@    *) ;;
  esac
  case "$command" in
@WORDS@  esac
}
complete -o default -F @FUNCTION@ @PROGRAM@
)",
                             {{"@PROGRAM@", program},
                              {"@FUNCTION@", FunctionName(program)},
                              {"@COMMANDS@", CommandPatterns(all)},
                              {"@VALUES@", ValueBranches(all, offer)},
                              {"@WORDS@", WordBranches(all, offer)}});
}

std::string Zsh(const std::string& program, const std::vector<CommandOutline>& all) {
  const Offer offer{"compadd -- $0", "_files"};
  return absl::StrReplaceAll(R"(#compdef @PROGRAM@
# Completions of @PROGRAM@ for zsh; made by @PROGRAM@ itself.
@FUNCTION@() {
  local previous=${words[CURRENT-1]} command= word
  for word in "${(@)words[2,CURRENT-1]}"; do
    case "$command $word" in
    @COMMANDS@) command="${command:+$command }$word" ;;
    esac
  done
  case "$command:$previous" in
@VALUES@    *) ;;
  esac
  case "$command" in
@WORDS@  esac
  [[ ${words[CURRENT]} == -* ]] || _files
}
compdef @FUNCTION@ @PROGRAM@
)",
                             {{"@PROGRAM@", program},
                              {"@FUNCTION@", FunctionName(program)},
                              {"@COMMANDS@", CommandPatterns(all)},
                              {"@VALUES@", ValueBranches(all, offer)},
                              {"@WORDS@", WordBranches(all, offer)}});
}

std::string Quoted(const std::string& text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"'", "\\'"}}), "'");
}

// When a line of fish's script applies: behind the words of `command`.
std::string FishCondition(const CommandOutline& command) {
  if (command.path.empty()) return "__fish_use_subcommand";
  std::string condition = absl::StrCat(
      "__fish_seen_subcommand_from ", absl::StrReplaceAll(command.path, {{" ", "; and __fish_seen_subcommand_from "}}));
  if (!command.commands.empty()) {
    absl::StrAppend(&condition, "; and not __fish_seen_subcommand_from ", absl::StrJoin(command.commands, " "));
  }
  return condition;
}

std::string FishFlag(const std::string& program, const std::string& condition, const FlagOutline& flag) {
  std::string line = absl::StrCat("complete -c ", program, condition.empty() ? "" : " -n " + Quoted(condition));
  for (const std::string& name : flag.names) {
    absl::string_view bare = name;
    if (absl::ConsumePrefix(&bare, "--")) {
      absl::StrAppend(&line, " -l ", bare);
    } else if (absl::ConsumePrefix(&bare, "-")) {
      absl::StrAppend(&line, " -s ", bare);
    }
  }
  if (!flag.choices.empty()) {
    absl::StrAppend(&line, " -x -a ", Quoted(absl::StrJoin(flag.choices, " ")));
  } else if (flag.takes_value()) {
    line += " -r";
  }
  return absl::StrCat(line, " -d ", Quoted(flag.help), "\n");
}

std::string Fish(const std::string& program, const std::vector<CommandOutline>& all) {
  std::string script = absl::StrCat("# Completions of ", program, " for fish; made by ", program, " itself.\n");
  for (const CommandOutline& outline : all) {
    const std::string condition = FishCondition(outline);
    for (const std::string& name : outline.commands) {
      absl::StrAppend(&script, "complete -c ", program, " -f -n ", Quoted(condition), " -a ", name, "\n");
    }
    for (const FlagOutline& flag : outline.flags) {
      // The program's own flags stand behind every command.
      if (!flag.is_argument) script += FishFlag(program, outline.path.empty() ? "" : condition, flag);
    }
  }
  return script;
}

}  // namespace

std::string CompletionScript(const CLI::App& app, absl::string_view shell) {
  const std::vector<CommandOutline> all = OutlineOf(app);
  if (shell == "zsh") return Zsh(app.get_name(), all);
  return shell == "fish" ? Fish(app.get_name(), all) : Bash(app.get_name(), all);
}

}  // namespace attend::formats
