// The subcommands of `attend`, and the frame of a program that has some of them.
#ifndef ATTEND_CLIENT_CLI_COMMANDS_COMMANDS_H_
#define ATTEND_CLIENT_CLI_COMMANDS_COMMANDS_H_

#include <CLI/App.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "client/cli/commands/report.h"
#include "client/cli/connection/connection_flags.h"
#include "client/cli/results/result_sink.h"

namespace attend::client {

// A subcommand, and what it does when it was given: `run` reports errors on stderr.
struct Command {
  CLI::App* app = nullptr;
  std::function<ExitCode()> run;
};

// Each declares subcommands of `app`. `connection` and `app` must outlive what they return.
//
// compute and sdpa: files in, attention, results to `sink`; a batch stops at its first error.
std::vector<Command> AddComputeCommands(CLI::App* app, const ConnectionFlags& connection,
                                        const std::shared_ptr<ResultSink>& sink);
// batch: requests as lines of JSON.
Command AddBatchCommand(CLI::App* app, const ConnectionFlags& connection);
// demo: a server of its own, and five tokens.
Command AddDemoCommand(CLI::App* app);
// info and health: what a server is, and whether it serves.
std::vector<Command> AddServerCommands(CLI::App* app, const ConnectionFlags& connection);
// layers list | get | upload | check | delete: the layers that a server keeps by name.
std::vector<Command> AddLayerCommands(CLI::App* app, const ConnectionFlags& connection);

struct Program {
  std::string name;
  std::string description;
  std::string version;
  std::string footer;  // Of each help.
  std::function<std::vector<Command>(CLI::App*, const ConnectionFlags&)> add_commands;
};

// Parses the arguments, runs the command that they name, and returns the exit code. Catches all exceptions.
int RunProgram(const Program& program, int argc, char** argv);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_COMMANDS_COMMANDS_H_
