// `attend compute` (the RPC Attend) and `attend sdpa` (ScaledDotProductAttention).

#include <algorithm>
#include <utility>

#include "absl/functional/function_ref.h"
#include "client/cli/commands/commands.h"
#include "client/cli/commands/progress.h"
#include "client/cli/requests/request_builder.h"
#include "client/cli/requests/tensor_source.h"

namespace attend::client {
namespace {

constexpr absl::Duration kConnectPatience = absl::Seconds(1);

// What the two commands share.
struct Batch {
  const ConnectionFlags& connection;
  const AttentionFlags& attention;
  ResultSink& sink;
  std::vector<std::string> labels;  // One per call.
};

// Asks what a call would cost, by the types and shapes of its tensors.
absl::Status Estimate(const Client& client, const ComputationRequest& request, const CallOptions& call,
                      std::size_t index, ResultSink& sink) {
  v1::EstimateCostRequest described;
  if (const auto* attend = std::get_if<v1::AttendRequest>(&request)) {
    *described.mutable_attend() = *attend;
    DescribeOnly(described.mutable_attend());
  } else {
    *described.mutable_scaled_dot_product_attention() = std::get<v1::ScaledDotProductAttentionRequest>(request);
    DescribeOnly(described.mutable_scaled_dot_product_attention());
  }
  const auto cost = client.EstimateCost(described, call);
  if (cost.ok()) sink.TakeEstimate(index, cost->response);
  return cost.status();
}

// Makes all calls of a batch. `prepare(index)` completes `request` for one of them.
ExitCode RunBatch(const Batch& batch, ComputationRequest* request,
                  absl::FunctionRef<absl::Status(std::size_t)> prepare) {
  const absl::StatusOr<std::vector<v1::OutputKind>> returned = ReturnedKinds(batch.attention);
  if (!returned.ok()) return ReportUsage(returned.status());
  const absl::StatusOr<std::vector<v1::OutputKind>> kinds = batch.sink.Begin(*returned, batch.labels);
  if (!kinds.ok()) return ReportUsage(kinds.status());
  const absl::StatusOr<Client> client = ConnectWith(batch.connection);
  if (!client.ok()) return ReportConnect(client.status());
  std::visit([&](auto& message) { message.mutable_outputs()->Assign(kinds->begin(), kinds->end()); }, *request);
  const CallOptions call(*ParseTimeout(batch.connection.timeout));
  // Making the connection would be most of a small call's round trip. When it cannot be made, the call itself says so
  // better.
  if (batch.sink.measures_time()) {
    client->WaitUntilConnected(CallOptions(std::min(call.timeout, kConnectPatience))).IgnoreError();
  }
  Progress progress(batch.labels.size());
  for (std::size_t i = 0; i < batch.labels.size(); ++i) {
    progress.Begin(i, batch.labels[i]);
    absl::Status prepared = prepare(i);
    if (prepared.ok() && batch.sink.estimates()) {
      progress.Pause();
      absl::Status estimated = Estimate(*client, *request, call, i, batch.sink);
      if (!estimated.ok()) return ReportCall(estimated, batch.connection);
      continue;
    }
    absl::StatusOr<Outcome> outcome = prepared.ok() ? Send(*client, *request, call) : prepared;
    progress.Pause();
    if (!prepared.ok()) return ReportUsage(prepared);
    if (!outcome.ok()) return ReportCall(outcome.status(), batch.connection);
    if (absl::Status status = batch.sink.Take(i, *request, *outcome); !status.ok()) return ReportResult(status);
  }
  return batch.sink.differs() ? kExitDiffers : kExitOk;
}

Command AddCompute(CLI::App* app, const ConnectionFlags& connection, const std::shared_ptr<ResultSink>& sink) {
  const auto flags = std::make_shared<ComputeFlags>();
  CLI::App* command = app->add_subcommand(
      "compute", "Attention over embeddings, through a layer or none (RPC attend.v1.AttentionService.Attend)");
  AddComputeFlags(command, flags.get());
  sink->AddFlags(command);
  return {command, [flags, sink, &connection] {
            ComputationRequest request = v1::AttendRequest();
            AttendRequestBuilder builder(*flags, &std::get<v1::AttendRequest>(request));
            return RunBatch({connection, flags->attention, *sink, flags->inputs}, &request, [&](std::size_t index) {
              const bool is_last = index + 1 >= flags->inputs.size();
              absl::Status prepared = builder.Prepare(index);
              return prepared.ok() && is_last ? CheckStandardInputIsUsedUp() : prepared;
            });
          }};
}

Command AddSdpa(CLI::App* app, const ConnectionFlags& connection, const std::shared_ptr<ResultSink>& sink) {
  const auto flags = std::make_shared<SdpaFlags>();
  CLI::App* command = app->add_subcommand(
      "sdpa", "Attention over given query, key and value (RPC attend.v1.AttentionService.ScaledDotProductAttention)");
  AddSdpaFlags(command, flags.get());
  sink->AddFlags(command);
  return {command, [flags, sink, &connection] {
            ComputationRequest request = v1::ScaledDotProductAttentionRequest();
            auto& message = std::get<v1::ScaledDotProductAttentionRequest>(request);
            return RunBatch({connection, flags->attention, *sink, {flags->query}}, &request, [&](std::size_t) {
              absl::Status built = BuildSdpaRequest(*flags, &message);
              return built.ok() ? CheckStandardInputIsUsedUp() : built;
            });
          }};
}

}  // namespace

std::vector<Command> AddComputeCommands(CLI::App* app, const ConnectionFlags& connection,
                                        const std::shared_ptr<ResultSink>& sink) {
  return {AddCompute(app, connection, sink), AddSdpa(app, connection, sink)};
}

}  // namespace attend::client
