#include <grpc/support/log.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <CLI/Validators.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <new>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "client/cli/commands/commands.h"
#include "formats/command_line/empty_value.h"
#include "formats/command_line/nearest.h"
#include "formats/command_line/outline.h"
#include "formats/command_line/usage_error.h"
#include "formats/command_line/whole_numbers.h"

namespace attend::client {
namespace {

constexpr int kManualSection = 1;  // Commands.

// CLI11's help, in which each subcommand also shows the flags of the program as a whole.
class HelpFormatter final : public CLI::Formatter {
 public:
  std::string make_footer(const CLI::App* app) const override {
    std::string footer = Formatter::make_footer(app);
    if (app->get_parent() == nullptr) return footer;
    const CLI::App* root = app->get_parent();
    while (root->get_parent() != nullptr) root = root->get_parent();
    const auto is_common = [](const CLI::Option* option) { return option->get_group() == kConnectionGroup; };
    return make_group(kConnectionGroup, false, root->get_options(is_common)) + "\n" + footer;
  }
};

CLI::App* AddVersion(CLI::App* app) { return app->add_subcommand("version", "The version of this program"); }

CLI::App* AddHelp(CLI::App* app, std::vector<std::string>* words) {
  CLI::App* command = app->add_subcommand("help", "What a command does, as in help layers upload");
  command->add_option("COMMAND", *words, "The command; default: all of them");
  return command;
}

// For shells, and for those who install this program; the second is no part of the help.
CLI::App* AddCompletions(CLI::App* app, std::string* shell) {
  CLI::App* command =
      app->add_subcommand("completions", "A script that completes commands and flags, for a shell to source");
  command->add_option("SHELL", *shell)->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  return command;
}

CLI::App* AddManual(CLI::App* app) { return app->add_subcommand("manual")->group(""); }

// Prints the help of the command that `words` name.
ExitCode ShowHelp(const CLI::App& app, const std::vector<std::string>& words) {
  const CLI::App* shown = &app;
  for (const std::string& word : words) {
    const std::vector<const CLI::App*> there = shown->get_subcommands(nullptr);
    const auto found =
        std::find_if(there.begin(), there.end(), [&](const auto* each) { return each->get_name() == word; });
    if (found == there.end()) {
      std::vector<std::string> known;
      known.reserve(there.size());
      for (const CLI::App* each : there) known.push_back(each->get_name());
      std::cerr << app.get_name() << ": there is no command '" << word << "'" << formats::DidYouMean(word, known)
                << "\n";
      return kExitUsage;
    }
    shown = *found;
  }
  std::cout << shown->help();
  return kExitOk;
}

int RefuseUsage(const Program& program, const std::string& why) {
  std::cerr << program.name << ": " << why << "\n";
  return kExitUsage;
}

// `code`, unless what was printed did not arrive: then kExitLocal in place of success.
int CheckOutput(int code) {
  std::cout.flush();
  return code != kExitOk || std::cout.good() ? code
                                             : ReportResult(absl::UnknownError("cannot write to standard output"));
}

int Run(const Program& program, int argc, char** argv) {
  const std::string unset = formats::EmptyAssignment({argv + 1, argv + argc});
  if (!unset.empty()) return RefuseUsage(program, unset);
  CLI::App app(program.description, program.name);
  const std::string version = program.name + " " + program.version;
  app.set_version_flag("--version", version);
  app.require_subcommand(1);
  app.fallthrough();  // The connection's flags may stand on either side of the subcommand.
  app.footer(program.footer);
  app.formatter(std::make_shared<HelpFormatter>());
  ConnectionFlags connection;
  AddConnectionFlags(&app, &connection);
  const std::vector<Command> commands = program.add_commands(&app, connection);
  std::vector<std::string> help_words;
  const CLI::App* const version_command = AddVersion(&app);
  const CLI::App* const help_command = AddHelp(&app, &help_words);
  std::string shell;
  const CLI::App* const completions_command = AddCompletions(&app, &shell);
  const CLI::App* const manual_command = AddManual(&app);
  formats::ReadIntegersInDecimal(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {
    const std::string wrong = formats::WordInPlaceOfCommand(app);
    return wrong.empty() ? app.exit(asked) : RefuseUsage(program, wrong);
  } catch (const CLI::ParseError& error) {
    return RefuseUsage(program, formats::UsageMessage(app, error));
  }
  if (const std::string empty = formats::EmptyValue(app); !empty.empty()) return RefuseUsage(program, empty);
  if (help_command->parsed()) return ShowHelp(app, help_words);
  if (version_command->parsed()) std::cout << version << "\n";
  if (completions_command->parsed()) std::cout << formats::CompletionScript(app, shell);
  if (manual_command->parsed()) std::cout << formats::ManualPage(app, kManualSection, program.version);
  for (const Command& command : commands) {
    if (command.app->parsed()) return command.run();
  }
  return kExitOk;
}

}  // namespace

int RunProgram(const Program& program, int argc, char** argv) {
  try {
    // Debian's Abseil is built with its lock-order detector live; its default on a finding is to end the process.
    absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
    std::signal(SIGXFSZ, SIG_IGN);  // A file at the limit of its size (ulimit -f) is an error of its writing.
    // gRPC and OpenSSL write their view of a failed connection to stderr; ReportCall says it in one sentence.
    if (std::getenv("GRPC_VERBOSITY") == nullptr) gpr_set_log_function([](gpr_log_func_args*) {});
    return CheckOutput(Run(program, argc, argv));
  } catch (const std::bad_alloc&) {  // Memory can run out: that is this machine's fault, not the user's.
    std::fputs("attend: out of memory; send less at once\n", stderr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "attend: %s\n", error.what());
  } catch (...) {
    std::fputs("attend: unknown exception\n", stderr);
  }
  return kExitLocal;
}

}  // namespace attend::client
