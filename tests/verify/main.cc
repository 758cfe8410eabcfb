// attend-verify: makes the calls of `attend compute` and `attend sdpa`, and compares what comes back with the core's
// float64 reference, computed here, or with files.

#include "client/cli/commands/commands.h"
#include "tests/verify/verifier.h"

namespace {

constexpr char kFooter[] =
    R"(Takes the flags of `attend compute` and `attend sdpa`. Prints a line per returned tensor: the largest error, where it
is, and the bound that attend promises there.

Exit codes: those of attend, and 1 when an error is larger than its bound.)";

}  // namespace

int main(int argc, char** argv) {
  using attend::client::AddComputeCommands;
  return attend::client::RunProgram(
      {.name = "attend-verify",
       .description = "Compares attend's results with a float64 computation or with files.",
       .version = ATTEND_VERSION,
       .footer = kFooter,
       .add_commands =
           [](CLI::App* app, const attend::client::ConnectionFlags& connection) {
             return AddComputeCommands(app, connection, std::make_shared<attend::client::Verifier>());
           }},
      argc, argv);
}
