#include "client/cli/commands/compute_command.h"

#include <algorithm>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "client/cli/commands/progress.h"
#include "client/cli/commands/report.h"
#include "client/cli/requests/computation.h"
#include "client/cli/requests/request_builder.h"
#include "client/cli/results/presenter.h"

namespace attend::client {
namespace {

constexpr absl::Duration kConnectPatience = absl::Seconds(1);

// What the two commands share.
struct Batch {
  const ConnectionFlags& common;
  const AttentionFlags& attention;
  const ResultFlags& result;
  std::vector<std::string> labels;  // One per call.
};

// Makes all calls of a batch. `prepare(index)` completes `request` for one of them.
ExitCode RunBatch(const Batch& batch, ComputationRequest* request,
                  absl::FunctionRef<absl::Status(std::size_t)> prepare) {
  absl::StatusOr<Presenter> presenter = Presenter::Create(batch.result, ReturnedKinds(batch.attention), batch.labels);
  if (!presenter.ok()) return ReportUsage(presenter.status());
  if (absl::Status status = CheckTopK(batch.attention, presenter->RequestedKinds()); !status.ok()) {
    return ReportUsage(status);
  }
  const absl::StatusOr<Client> client = ConnectWith(batch.common);
  if (!client.ok()) return ReportConnect(client.status());
  std::visit(
      [&](auto& message) {
        for (const v1::OutputKind kind : presenter->RequestedKinds()) message.add_outputs(kind);
      },
      *request);
  const CallOptions call(*ParseTimeout(batch.common.timeout));
  // A receipt is about the call; making the connection would be most of a small one's round trip. When it cannot be
  // made, the call itself says so better.
  if (batch.result.timing)
    client->WaitUntilConnected(CallOptions(std::min(call.timeout, kConnectPatience))).IgnoreError();
  Progress progress(batch.labels.size());
  for (std::size_t i = 0; i < batch.labels.size(); ++i) {
    progress.Begin(i, batch.labels[i]);
    absl::Status prepared = prepare(i);
    absl::StatusOr<Outcome> outcome = prepared.ok() ? Send(*client, *request, call) : prepared;
    progress.Pause();
    if (!prepared.ok()) return ReportUsage(prepared);
    if (!outcome.ok()) return ReportCall(outcome.status(), batch.common);
    if (absl::Status status = presenter->Present(i, *request, *outcome); !status.ok()) return ReportResult(status);
  }
  return presenter->differs() ? kExitDiffers : kExitOk;
}

}  // namespace

CLI::App* AddComputeCommand(CLI::App* app, ComputeFlags* flags) {
  CLI::App* command = app->add_subcommand("compute", "Attention over embeddings, through a layer or none");
  command
      ->add_option("--input", flags->inputs,
                   "Embeddings [T, D] or [B, T, D]: FILE.npy, FILE.safetensors:TENSOR or - for stdin. May be repeated")
      ->required()
      ->allow_extra_args(false);
  command->add_option("--context", flags->context, "Tokens to look at, for cross-attention (default: the input)");
  CLI::Option* layer = command->add_option(
      "--layer", flags->layer,
      "Weights: FILE.safetensors[:PREFIX] in any naming that `attend layers upload` takes, with the config.json beside "
      "it; or the name of a layer in the server, see `attend layers`");
  command->add_option("--layer-name", flags->layer_name, "The name of a layer in the server, whatever it looks like")
      ->excludes(layer);
  command->add_option("--position-offset", flags->position_offset,
                      "Position of the first token, for a named layer with rotary embeddings (default: 0)");
  command->add_option("--num-heads", flags->num_heads,
                      "Query heads of the layer (default: what its files say; else 1 for the notebook's naming, and an "
                      "error for others)");
  command->add_option("--num-kv-heads", flags->num_kv_heads, "Key and value heads of the layer (default: --num-heads)");
  AddAttentionFlags(command, &flags->attention);
  AddResultFlags(command, &flags->result);
  return command;
}

CLI::App* AddSdpaCommand(CLI::App* app, SdpaFlags* flags) {
  CLI::App* command = app->add_subcommand("sdpa", "Scaled dot-product attention over given query, key and value");
  command->add_option("--query", flags->query, "[T, E], [H, T, E] or [B, H, T, E], as a file")->required();
  command->add_option("--key", flags->key, "[S, E], [K, S, E] or [B, K, S, E], as a file")->required();
  command->add_option("--value", flags->value, "[S, V], [K, S, V] or [B, K, S, V], as a file")->required();
  command
      ->add_option("--partial", flags->partials,
                   "Merge with the same queries' result over other keys: FILE.safetensors with `output` and "
                   "`log_sum_exp`, as --return output,log_sum_exp --output FILE.safetensors wrote it. May be repeated")
      ->allow_extra_args(false);
  AddAttentionFlags(command, &flags->attention);
  AddResultFlags(command, &flags->result);
  return command;
}

ExitCode RunCompute(const ComputeFlags& flags, const ConnectionFlags& common) {
  if (const std::string name = NamedLayer(flags); flags.result.verify && !name.empty()) {
    return ReportUsage(absl::InvalidArgumentError(
        absl::StrCat("--verify computes with the layer's weights, and those of '", name,
                     "' are in the server; give their file with --layer FILE.safetensors, or a result with --expect")));
  }
  ComputationRequest request = v1::AttendRequest();
  AttendRequestBuilder builder(flags, &std::get<v1::AttendRequest>(request));
  return RunBatch({common, flags.attention, flags.result, flags.inputs}, &request,
                  [&](std::size_t index) { return builder.Prepare(index); });
}

ExitCode RunSdpa(const SdpaFlags& flags, const ConnectionFlags& common) {
  ComputationRequest request = v1::ScaledDotProductAttentionRequest();
  auto& message = std::get<v1::ScaledDotProductAttentionRequest>(request);
  return RunBatch({common, flags.attention, flags.result, {flags.query}}, &request,
                  [&](std::size_t) { return BuildSdpaRequest(flags, &message); });
}

}  // namespace attend::client
