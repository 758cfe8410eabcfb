// `attend demo`: the teaching notebook's case on a server of its own.

#include <unistd.h>

#include <algorithm>
#include <array>
#include <iostream>
#include <iterator>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/commands/commands.h"
#include "client/cli/requests/computation.h"
#include "client/demo/demo_server.h"
#include "client/draw/heatmap.h"
#include "client/io/npy.h"

namespace attend::client {
namespace {

// examples/data/x.npy, made into numbers by the build.
constexpr unsigned char kEmbeddings[] = {
#include "demo_embeddings.inc"
};

constexpr char kWhatNext[] = R"(
That server has ended. To go on:
  attend-server &                 a server on port 50051, for all that follows
  attend demo --page              the same in the browser, with words and numbers of your own
  attend info                     what it is and what its limits are
  attend compute --input x.npy --weights --show
                                  your own tokens: .npy, .npz, .csv or .safetensors, as [tokens, features]
  attend help compute             masks, layers, pictures and whatever else there is
)";

constexpr std::array<const char*, 5> kTokens = {"The", "cat", "drinks", "its", "milk"};

// Which token each token looks at most.
std::string Reading(const Tensor& weights) {
  const std::vector<double> values = weights.ToDoubles();
  constexpr std::size_t kCount = kTokens.size();
  std::string text;
  for (std::size_t row = 0; row < kCount; ++row) {
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(row * kCount);
    const auto most = std::max_element(begin, begin + static_cast<std::ptrdiff_t>(kCount));
    absl::StrAppendFormat(&text, "  %6s takes %2.0f %% from %s\n", kTokens[row], 100 * *most,
                          kTokens[static_cast<std::size_t>(most - begin)]);
  }
  return text;
}

absl::StatusOr<Outcome> Compute(const Client& client) {
  std::istringstream file(std::string(std::begin(kEmbeddings), std::end(kEmbeddings)));
  absl::StatusOr<Tensor> embeddings = ReadNpy(file);
  if (!embeddings.ok()) return embeddings.status();
  v1::AttendRequest request;
  if (absl::Status status = (*std::move(embeddings)).MoveTo(request.mutable_embeddings()); !status.ok()) return status;
  request.set_layer_name("notebook");
  request.add_outputs(v1::OUTPUT_KIND_OUTPUT);
  request.add_outputs(v1::OUTPUT_KIND_ATTENTION_WEIGHTS);
  return Send(client, request, CallOptions(absl::Seconds(30)));
}

void Show(const Outcome& outcome) {
  const Tensor& weights = *Find(outcome.tensors, "attention_weights");
  std::cout << "\nFive tokens of 64 random features, and a layer that PyTorch would draw after torch.manual_seed(42).\n"
               "Each row says where its token looks; the weights of a row add up to 1:\n\n";
  const std::vector<std::string> tokens(kTokens.begin(), kTokens.end());
  const DrawStyle style{.query_labels = tokens, .key_labels = tokens};
  for (const WeightMap& map : SplitMaps(weights, 1))
    std::cout << DrawHeatmap(map, style, DetectTerminal(STDOUT_FILENO));
  std::cout << "\n" << Reading(weights);
}

absl::StatusOr<std::unique_ptr<DemoServer>> StartServer(const std::vector<std::string>& flags) {
  const absl::StatusOr<std::string> program = FindServerProgram();
  if (!program.ok()) return program.status();
  absl::StatusOr<std::unique_ptr<DemoServer>> server = DemoServer::Start(*program, flags);
  if (server.ok()) std::cout << "Started " << *program << " on " << (*server)->address() << ".\n" << std::flush;
  return server;
}

// A page in the browser, until somebody interrupts it.
ExitCode RunPage() {
  const absl::StatusOr<std::unique_ptr<DemoServer>> server = StartServer({"--playground", "--log-level", "warning"});
  if (!server.ok()) return ReportResult(server.status());
  DemoServer::HoldInterrupts();  // Whoever reads the next line may interrupt.
  std::cout << "Open http://" << (*server)->http_address() << "/ in a browser. Ctrl-C stops the server.\n"
            << std::flush;
  const absl::Status interrupted = (*server)->WaitForInterrupt();
  return interrupted.ok() ? kExitOk : ReportResult(interrupted);
}

ExitCode RunDemo() {
  const absl::StatusOr<std::unique_ptr<DemoServer>> server =
      StartServer({"--layer", "notebook=init:42:64", "--log-level", "warning"});
  if (!server.ok()) return ReportResult(server.status());
  const ConnectionFlags connection{.endpoints = {(*server)->address()}};
  const absl::StatusOr<Client> client = ConnectWith(connection);
  if (!client.ok()) return ReportConnect(client.status());
  const absl::StatusOr<Outcome> outcome = Compute(*client);
  if (!outcome.ok()) return ReportCall(outcome.status(), connection);
  const Tensor* const weights = Find(outcome->tensors, "attention_weights");
  if (weights == nullptr || weights->shape() != std::vector<std::int64_t>(2, kTokens.size())) {
    return ReportResult(absl::InternalError("the server returned no attention_weights of five tokens"));
  }
  Show(*outcome);
  return kExitOk;
}

}  // namespace

Command AddDemoCommand(CLI::App* app) {
  CLI::App* command =
      app->add_subcommand("demo", "Start a server on a free port, show attention over five tokens, and stop it");
  const auto page = std::make_shared<bool>(false);
  command->add_flag("--page", *page, "Serve a page for the browser instead, until Ctrl-C");
  return {command, [page] {
            if (*page) return RunPage();
            const ExitCode code = RunDemo();
            if (code == kExitOk) std::cout << kWhatNext << std::flush;
            return code;
          }};
}

}  // namespace attend::client
