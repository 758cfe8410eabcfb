#include "client/cli/commands/server_commands.h"

#include <cstdint>
#include <iostream>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "client/cli/commands/report.h"
#include "client/cli/results/result_flags.h"

namespace attend::client {
namespace {

using Json = nlohmann::ordered_json;

// `FLOAT32` for DATA_TYPE_FLOAT32; the number for a type newer than this client.
std::vector<std::string> TypeNames(const v1::GetServerInfoResponse& info) {
  std::vector<std::string> names;
  for (const int type : info.supported_data_types()) {
    const std::string& name = v1::DataType_Name(static_cast<v1::DataType>(type));
    names.push_back(name.empty() ? absl::StrCat(type) : std::string(absl::StripPrefix(name, "DATA_TYPE_")));
  }
  return names;
}

Json ToJson(const v1::GetServerInfoResponse& info) {
  const v1::ServerLimits& limits = info.limits();
  return {{"version", info.version()},
          {"instruction_set", info.instruction_set()},
          {"bit_reproducible", info.bit_reproducible()},
          {"num_threads", info.num_threads()},
          {"supported_data_types", TypeNames(info)},
          {"limits",
           {{"max_request_bytes", limits.max_request_bytes()},
            {"max_response_bytes", limits.max_response_bytes()},
            {"max_request_flops", limits.max_request_flops()},
            {"max_request_memory_bytes", limits.max_request_memory_bytes()},
            {"max_queued_requests", limits.max_queued_requests()},
            {"max_memory_in_flight_bytes", limits.max_memory_in_flight_bytes()}}}};
}

std::string Mebibytes(std::int64_t bytes) {
  return absl::StrFormat("%.4g MiB", static_cast<double>(bytes) / (1 << 20));
}

std::string ToTable(const v1::GetServerInfoResponse& info) {
  const v1::ServerLimits& limits = info.limits();
  const std::pair<const char*, std::string> rows[] = {
      {"version", info.version()},
      {"instruction set", info.instruction_set()},
      {"bit reproducible", info.bit_reproducible() ? "yes" : "no"},
      {"threads", absl::StrCat(info.num_threads())},
      {"data types", absl::StrJoin(TypeNames(info), ", ")},
      {"max request", Mebibytes(limits.max_request_bytes())},
      {"max response", Mebibytes(limits.max_response_bytes())},
      {"max work", absl::StrFormat("%.4g GFLOP per request", limits.max_request_flops() / 1e9)},
      {"max memory", absl::StrCat(Mebibytes(limits.max_request_memory_bytes()), " per request")},
      {"max queued", absl::StrCat(limits.max_queued_requests(), " requests")},
      {"max in flight", absl::StrCat(Mebibytes(limits.max_memory_in_flight_bytes()), " of all requests together")},
  };
  std::string out;
  for (const auto& [name, value] : rows) absl::StrAppendFormat(&out, "%-18s%s\n", name, value);
  return out;
}

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
  if (flags.format == "json") {
    std::cout << Json{{"service", flags.service}, {"status", StateName(state)}}.dump() << "\n";
  } else {
    std::cout << StateName(state) << "\n";
  }
  std::cout.flush();
}

}  // namespace

CLI::App* AddInfoCommand(CLI::App* app, InfoFlags* flags) {
  CLI::App* command = app->add_subcommand("info", "What the server is, computes with and accepts");
  AddFormatFlag(command, {"json", "table"}, &flags->format);
  return command;
}

CLI::App* AddHealthCommand(CLI::App* app, HealthFlags* flags) {
  CLI::App* command = app->add_subcommand("health", "Whether the server serves (exit code 0) or not");
  command->add_option("--service", flags->service,
                      "attend.v1.AttentionService, liveness or readiness (default: the server as a whole)");
  command->add_flag("--watch", flags->watch, "Print every change until interrupted; --timeout does not apply");
  AddFormatFlag(command, {"json", "table"}, &flags->format);
  return command;
}

ExitCode RunInfo(const InfoFlags& flags, const ConnectionFlags& common) {
  const absl::StatusOr<Client> client = ConnectWith(common);
  if (!client.ok()) return ReportConnect(client.status());
  const auto answer = client->GetServerInfo(CallOptions(*ParseTimeout(common.timeout)));
  if (!answer.ok()) return ReportCall(answer.status(), common);
  if (flags.format == "json") {
    std::cout << ToJson(answer->response).dump(2) << "\n";
  } else {
    std::cout << ToTable(answer->response);
  }
  return kExitOk;
}

ExitCode RunHealth(const HealthFlags& flags, const ConnectionFlags& common) {
  const absl::StatusOr<Client> client = ConnectWith(common);
  if (!client.ok()) return ReportConnect(client.status());
  if (flags.watch) {
    const absl::Status status =
        client->WatchHealth(flags.service, CallOptions(absl::InfiniteDuration()), [&](HealthState state) {
          PrintState(flags, state);
          return std::cout.good();
        });
    return status.ok() ? kExitOk : ReportCall(status, common);
  }
  const absl::StatusOr<HealthState> state =
      client->CheckHealth(flags.service, CallOptions(*ParseTimeout(common.timeout)));
  if (!state.ok()) return ReportCall(state.status(), common);
  PrintState(flags, *state);
  return *state == HealthState::kServing ? kExitOk : kExitServer;
}

}  // namespace attend::client
