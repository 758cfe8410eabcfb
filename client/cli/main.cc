// The `attend` command: attention from the shell.

#include <grpc/support/log.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "client/cli/commands/compute_command.h"
#include "client/cli/commands/exit_code.h"
#include "client/cli/commands/layer_commands.h"
#include "client/cli/commands/server_commands.h"
#include "client/cli/connection/connection_flags.h"

namespace attend::client {
namespace {

constexpr char kFooter[] = R"(Examples:
  attend compute --input x.npy --layer weights.safetensors --weights --show
  attend compute --input a.npy --input b.npy --layer mha.safetensors --num-heads 8 --output-dir results
  attend sdpa --query q.npy --key k.npy --value v.npy --causal -o npy > output.npy
  attend compute --input x.npy --top-k 3
  attend sdpa --query q.npy --key k2.npy --value v2.npy --partial part1.safetensors
  attend layers upload minilm/0 model.safetensors --prefix encoder.layer.0. --num-heads 12
  attend compute --input x.npy --layer minilm/0
  attend --endpoints 10.0.0.1:50051,10.0.0.2:50051 health --service readiness

On a terminal stdout is a table; in a pipe it is the .npy file of the output (several tensors: one after the other).
Messages go to stderr.

Exit codes: 0 success, 1 --verify or --expect found too large an error, 2 wrong flags or files,
3 the server answered with an error or is not serving, 4 no answer (network, deadline),
5 a result could not be written or memory ran out.)";

// Help as CLI11 has it, in which each subcommand, however deep, also shows the flags of the command as a whole.
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

std::string FailureMessage(const CLI::App* app, const CLI::Error& error) {
  return "attend: " + CLI::FailureMessage::simple(app, error);
}

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

int Run(int argc, char** argv) {
  CLI::App app("Attention as a service, from the command line.", "attend");
  app.set_version_flag("--version", std::string("attend ") + ATTEND_VERSION);
  app.require_subcommand(1);
  app.fallthrough();  // The common flags may stand on either side of the subcommand.
  app.footer(kFooter);
  app.formatter(std::make_shared<HelpFormatter>());
  app.failure_message(FailureMessage);
  ConnectionFlags common;
  AddConnectionFlags(&app, &common);
  ComputeFlags compute;
  SdpaFlags sdpa;
  InfoFlags info;
  HealthFlags health;
  LayersFlags layers;
  const CLI::App* const compute_command = AddComputeCommand(&app, &compute);
  const CLI::App* const sdpa_command = AddSdpaCommand(&app, &sdpa);
  const CLI::App* const info_command = AddInfoCommand(&app, &info);
  const CLI::App* const layers_command = AddLayersCommand(&app, &layers);
  AddHealthCommand(&app, &health);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (const std::string unknown = UnknownCommand(app); !unknown.empty()) {
      std::cerr << "attend: there is no command '" << unknown << "'; see attend --help\n";
      return kExitUsage;
    }
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  if (compute_command->parsed()) return RunCompute(compute, common);
  if (sdpa_command->parsed()) return RunSdpa(sdpa, common);
  if (info_command->parsed()) return RunInfo(info, common);
  if (layers_command->parsed()) return RunLayers(*layers_command, layers, common);
  return RunHealth(health, common);
}

}  // namespace
}  // namespace attend::client

int main(int argc, char** argv) {
  // Nothing of ours throws, but memory can run out: that is this machine's fault, not the user's.
  try {
    // Debian's Abseil is built with its lock-order detector live; its default on a finding is to end the process.
    absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
    // gRPC and OpenSSL write their view of a failed connection to stderr; ReportCall says it in one sentence.
    if (std::getenv("GRPC_VERBOSITY") == nullptr) gpr_set_log_function([](gpr_log_func_args*) {});
    return attend::client::Run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fputs("attend: out of memory; send less at once\n", stderr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "attend: %s\n", error.what());
  } catch (...) {
    std::fputs("attend: unknown exception\n", stderr);
  }
  return attend::client::kExitLocal;
}
