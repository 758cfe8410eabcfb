// `attend info` (the RPC GetServerInfo) and `attend health` (grpc.health.v1).

#include <iostream>

#include "client/cli/commands/commands.h"
#include "client/cli/results/output_format.h"
#include "client/text/message_json.h"

namespace attend::client {
namespace {

struct HealthFlags {
  std::string service;  // Empty: the server as a whole.
  bool watch = false;
  std::string format;
};

const char* StateName(HealthState state) {
  switch (state) {
    case HealthState::kServing: return "SERVING";
    case HealthState::kNotServing: return "NOT_SERVING";
    case HealthState::kServiceUnknown: return "SERVICE_UNKNOWN";
    case HealthState::kUnknown: return "UNKNOWN";
  }
  return "UNKNOWN";
}

void PrintState(const HealthFlags& flags, HealthState state) {
  const Json json = {{"service", flags.service}, {"status", StateName(state)}};
  std::cout << (flags.format == "json" ? json.dump() : StateName(state)) << std::endl;
}

ExitCode RunInfo(const std::string& format, const ConnectionFlags& connection) {
  const absl::StatusOr<Client> client = ConnectWith(connection);
  if (!client.ok()) return ReportConnect(client.status());
  const auto result = client->GetServerInfo(CallOptions(*ParseTimeout(connection.timeout)));
  if (!result.ok()) return ReportCall(result.status(), connection);
  const Json json = ToJson(result->response, 2);
  Print(format, json, FormatRows(ToRows(json)));
  return kExitOk;
}

// kExitOk when the service is SERVING, kExitServer when it is anything else. With --watch, prints each change until the
// stream ends or the process is interrupted.
ExitCode RunHealth(const HealthFlags& flags, const ConnectionFlags& connection) {
  const absl::StatusOr<Client> client = ConnectWith(connection);
  if (!client.ok()) return ReportConnect(client.status());
  if (flags.watch) {
    const absl::Status status =
        client->WatchHealth(flags.service, CallOptions(absl::InfiniteDuration()), [&](HealthState state) {
          PrintState(flags, state);
          return std::cout.good();
        });
    return status.ok() ? kExitOk : ReportCall(status, connection);
  }
  const absl::StatusOr<HealthState> state =
      client->CheckHealth(flags.service, CallOptions(*ParseTimeout(connection.timeout)));
  if (!state.ok()) return ReportCall(state.status(), connection);
  PrintState(flags, *state);
  return *state == HealthState::kServing ? kExitOk : kExitServer;
}

}  // namespace

std::vector<Command> AddServerCommands(CLI::App* app, const ConnectionFlags& connection) {
  const auto info_format = std::make_shared<std::string>();
  CLI::App* info = app->add_subcommand("info", "What the server is, computes with and accepts (RPC GetServerInfo)");
  AddFormatFlag(info, {"json", "table"}, info_format.get());
  const auto flags = std::make_shared<HealthFlags>();
  CLI::App* health = app->add_subcommand("health", "Whether the server serves (exit code 0) or not");
  health->add_option("--service", flags->service,
                     "attend.v1.AttentionService, liveness or readiness (default: the server as a whole)");
  health->add_flag("--watch", flags->watch, "Print every change until interrupted; --timeout does not apply");
  AddFormatFlag(health, {"json", "table"}, &flags->format);
  return {{info, [info_format, &connection] { return RunInfo(*info_format, connection); }},
          {health, [flags, &connection] { return RunHealth(*flags, connection); }}};
}

}  // namespace attend::client
