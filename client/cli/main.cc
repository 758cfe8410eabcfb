// The `attend` command: attention from the shell.

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <exception>
#include <iostream>

#include "absl/synchronization/mutex.h"
#include "client/cli/compute_command.h"
#include "client/cli/exit_code.h"
#include "client/cli/server_commands.h"

namespace attend::client {
namespace {

constexpr char kFooter[] = R"(Examples:
  attend compute --input x.npy --layer weights.safetensors --weights --show
  attend compute --input a.npy --input b.npy --layer mha.safetensors --num-heads 8 --output-dir results
  attend sdpa --query q.npy --key k.npy --value v.npy --causal -o npy > output.npy
  attend health --service readiness

On a terminal stdout is a table; in a pipe it is the .npy file of the output (several tensors: one after the other).
Messages go to stderr.

Exit codes: 0 success, 1 --verify or --expect found too large an error, 2 wrong flags or files,
3 the server answered with an error or is not serving, 4 no answer (network, deadline).)";

int Run(int argc, char** argv) {
  CLI::App app("Attention as a service, from the command line.", "attend");
  app.set_version_flag("--version", std::string("attend ") + ATTEND_VERSION);
  app.require_subcommand(1);
  app.footer(kFooter);
  ComputeFlags compute;
  SdpaFlags sdpa;
  InfoFlags info;
  HealthFlags health;
  const CLI::App* const compute_command = AddComputeCommand(&app, &compute);
  const CLI::App* const sdpa_command = AddSdpaCommand(&app, &sdpa);
  const CLI::App* const info_command = AddInfoCommand(&app, &info);
  AddHealthCommand(&app, &health);
  const auto is_named = [&](const CLI::App* command) { return command->check_name(argv[1]); };
  if (argc > 1 && argv[1][0] != '-' && app.get_subcommands(is_named).empty()) {
    std::cerr << "attend: there is no command '" << argv[1] << "'; see attend --help\n";
    return kExitUsage;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  if (compute_command->parsed()) return RunCompute(compute);
  if (sdpa_command->parsed()) return RunSdpa(sdpa);
  if (info_command->parsed()) return RunInfo(info);
  return RunHealth(health);
}

}  // namespace
}  // namespace attend::client

int main(int argc, char** argv) {
  // Nothing of ours throws, but memory can run out.
  try {
    // Debian's Abseil is built with its lock-order detector live; its default on a finding is to end the process.
    absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
    return attend::client::Run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "attend: %s\n", error.what());
  } catch (...) {
    std::fputs("attend: unknown exception\n", stderr);
  }
  return attend::client::kExitUsage;
}
