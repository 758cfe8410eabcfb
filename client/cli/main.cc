// The `attend` command: attention from the shell.

#include "client/cli/commands/commands.h"
#include "client/cli/results/presenter.h"

namespace attend::client {
namespace {

constexpr char kFooter[] = R"(Examples:
  attend demo
  attend compute --input x.npy --layer weights.safetensors --weights --show
  attend compute --input a.npy --input b.npy --layer mha.safetensors --num-heads 8 --output-dir results
  attend compute --input x.npy --plot weights.svg --labels tokens.txt --color-scale log
  attend compute --input tokens.csv --weights --output results.npz
  attend sdpa --query q.npy --key k.npy --value v.npy --causal -o npy > output.npy
  attend compute --input x.npy --top-k 3
  attend sdpa --query q.npy --key k2.npy --value v2.npy --partial part1.safetensors
  attend layers upload minilm/0 model.safetensors --prefix encoder.layer.0. --num-heads 12
  attend compute --input x.npy --layer minilm/0
  attend batch requests.jsonl > answers.jsonl
  attend --endpoints 10.0.0.1,10.0.0.2:8443 health --service readiness

Stdout is a table unless -o asks for json or npy. Messages go to stderr. To compare results with a float64 computation or with files: attend-verify, built with the tests.

Exit codes: 0 success, 2 wrong flags or files, 3 the server refused or is not serving,
4 no response (network, deadline), 5 a result could not be written or memory ran out.)";

std::vector<Command> AddCommands(CLI::App* app, const ConnectionFlags& connection) {
  std::vector<Command> all = AddComputeCommands(app, connection, std::make_shared<Presenter>());
  all.push_back(AddBatchCommand(app, connection));
  all.push_back(AddDemoCommand(app));
  for (Command& command : AddServerCommands(app, connection)) all.push_back(std::move(command));
  for (Command& command : AddLayerCommands(app, connection)) all.push_back(std::move(command));
  return all;
}

}  // namespace
}  // namespace attend::client

int main(int argc, char** argv) {
  return attend::client::RunProgram({.name = "attend",
                                     .description = "Attention as a service, from the command line.",
                                     .version = ATTEND_VERSION,
                                     .footer = attend::client::kFooter,
                                     .add_commands = attend::client::AddCommands},
                                    argc, argv);
}
