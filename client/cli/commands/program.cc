#include <grpc/support/log.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <new>

#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "client/cli/commands/commands.h"

namespace attend::client {
namespace {

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

// The word that stands where a command should, behind the commands that it follows, as in `layers frobnicate`; empty
// when no command is missing, or there is no such word.
std::string UnknownCommand(const CLI::App& app) {
  std::string path;
  const CLI::App* last = &app;
  while (!last->get_subcommands().empty()) {
    last = last->get_subcommands().front();
    path += last->get_name() + " ";
  }
  const std::vector<std::string> left = app.remaining(/*recurse=*/true);
  const bool missing = last->get_require_subcommand_min() > 0;
  return missing && !left.empty() && !absl::StartsWith(left.front(), "-") ? path + left.front() : "";
}

int Run(const Program& program, int argc, char** argv) {
  CLI::App app(program.description, program.name);
  app.set_version_flag("--version", program.name + " " + program.version);
  app.require_subcommand(1);
  app.fallthrough();  // The connection's flags may stand on either side of the subcommand.
  app.footer(program.footer);
  app.formatter(std::make_shared<HelpFormatter>());
  app.failure_message([&program](const CLI::App* where, const CLI::Error& error) {
    return program.name + ": " + CLI::FailureMessage::simple(where, error);
  });
  ConnectionFlags connection;
  AddConnectionFlags(&app, &connection);
  const std::vector<Command> commands = program.add_commands(&app, connection);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (const std::string unknown = UnknownCommand(app); !unknown.empty()) {
      std::cerr << program.name << ": there is no command '" << unknown << "'; see " << program.name << " --help\n";
      return kExitUsage;
    }
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  for (const Command& command : commands) {
    if (command.app->parsed()) return command.run();
  }
  return kExitUsage;  // Unreachable: CLI11 requires a subcommand.
}

}  // namespace

int RunProgram(const Program& program, int argc, char** argv) {
  try {
    // Debian's Abseil is built with its lock-order detector live; its default on a finding is to end the process.
    absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
    // gRPC and OpenSSL write their view of a failed connection to stderr; ReportCall says it in one sentence.
    if (std::getenv("GRPC_VERBOSITY") == nullptr) gpr_set_log_function([](gpr_log_func_args*) {});
    return Run(program, argc, argv);
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
