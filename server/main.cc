// attend-server: serves attend.v1.AttentionService until SIGTERM or SIGINT.
//
// Exit codes: 0 after a drain and after --help and its like; 1 when it cannot serve; 2 when it was asked wrongly.
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "core/kernels/instruction_set.h"
#include "server/attention_server.h"
#include "server/base/logging.h"
#include "server/base/protocol.h"
#include "server/config/configured_layers.h"
#include "server/config/flags.h"
#include "server/config/start_settings.h"
#include "server/process.h"

namespace attend::server {
namespace {

void LogStart(const ServerConfig& config, const AttentionServer& server, Log& log) {
  for (std::size_t i = 0; i < server.ports().size(); ++i) {
    log.Info("listening", {{"address", config.listen[i]},
                           {"bound", server.addresses()[i]},
                           {"port", std::int64_t{server.ports()[i]}},
                           {"tls", std::string(config.tls.certificate_path.empty() ? "off"
                                               : config.tls.client_ca_path.empty() ? "on"
                                                                                   : "mutual")}});
  }
  for (const std::string& listen : config.listen) {
    if (!config.tls.certificate_path.empty() || IsLoopback(listen)) continue;
    log.Warning("plaintext beyond this machine: whoever reads the network reads tensors and tokens",
                {{"address", listen}});
  }
  log.Info("serving", {{"version", std::string(kVersion)},
                       {"threads", std::int64_t{config.threads}},
                       {"polling_threads", std::int64_t{config.polling_threads}},
                       {"instruction_set", std::string(InstructionSetName(server.kernels().instruction_set))}});
}

std::vector<int> AllPorts(const AttentionServer& server) {
  std::vector<int> ports = server.ports();
  if (server.admin_port() != 0) ports.push_back(server.admin_port());
  return ports;
}

int Serve(const ParsedFlags& flags, const ShutdownSignals& signals) {
  const ServerConfig& config = flags.config;
  Log log({.format = config.log_format == "json" ? LogFormat::kJson : LogFormat::kText,
           .level = ParseLogLevel(config.log_level)});
  const GrpcLogRoute grpc_log(log);
  for (const std::string& warning : flags.warnings) log.Warning(warning);
  RaiseOpenFileLimit();

  auto server = AttentionServer::Start(config, log);
  absl::Status started = server.status();
  if (started.ok()) LogStart(config, **server, log);
  log.Flush();  // Whoever finds the port finds the log's first lines.
  if (started.ok() && !config.port_file.empty()) started = WritePortFile(config.port_file, AllPorts(**server));
  if (!started.ok()) {
    log.Error(std::string_view(started.message().data(), started.message().size()));
    return absl::IsInvalidArgument(started) ? 2 : 1;
  }

  signals.Wait([&server] { (*server)->Reload(); });
  signals.RunWhileListening([&server] { (*server)->Drain(); }, [&server] { (*server)->ForceStop(); });
  log.Info("stopped");
  return 0;
}

// --check-config: whether a start with this configuration would get as far as binding its addresses.
int Check(const ParsedFlags& flags) {
  const absl::StatusOr<StartSettings> settings = ResolveStartSettings(flags.config);
  if (!settings.ok()) {
    std::cerr << "attend-server: " << settings.status().message() << "\n";
    return 2;
  }
  const auto layers = LoadConfiguredLayers(
      flags.config.layer_sources, settings->kernels.instruction_set,
      [](const std::string& sentence) { std::cerr << "attend-server: warning: " << sentence << "\n"; });
  if (!layers.ok()) {
    std::cerr << "attend-server: " << layers.status().message() << "\n";
    return 2;
  }
  std::cout << "the configuration is valid\n";
  return 0;
}

int Main(const std::vector<std::string>& arguments) {
  ChooseGrpcExperiments();
  const ShutdownSignals signals;
  const absl::StatusOr<ParsedFlags> flags = ParseFlags(arguments, ReadEnvironment());
  if (!flags.ok()) {
    std::cerr << "attend-server: " << flags.status().message() << "\nTry attend-server --help.\n";
    return 2;
  }
  const bool serves = !flags->output.has_value() && !flags->check_only;
  for (const std::string& warning : flags->warnings) {
    if (!serves) std::cerr << "attend-server: warning: " << warning << "\n";  // Else they go to the log.
  }
  if (flags->output.has_value()) {
    std::cout << *flags->output;
    return 0;
  }
  if (flags->check_only) return Check(*flags);
  return Serve(*flags, signals);
}

}  // namespace
}  // namespace attend::server

int main(int argc, char** argv) {
  // Debian builds Abseil with its lock-order detector live: one lock for all locks, and a wrong guess ends the process.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  return attend::server::Main(std::vector<std::string>(argv + 1, argv + argc));
}
