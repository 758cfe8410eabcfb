// attend-server: serves attend.v1.AttentionService until SIGTERM or SIGINT.
//
// Exit codes: 0 after a drain and after --help and its like; 1 when it cannot serve or cannot print what was asked for;
// 2 when it was asked wrongly. An error of the program while it serves ends it by SIGABRT.
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "core/kernels/instruction_set.h"
#include "server/attention_server.h"
#include "server/base/logging.h"
#include "server/base/protocol.h"
#include "server/config/configured_layers.h"
#include "server/config/flags.h"
#include "server/config/start_settings.h"
#include "server/process.h"
#include "server/rpc/listen_address.h"

namespace attend::server {
namespace {

constexpr char kTooMuchMemory[] =
    "the server may come to hold more than the container or the machine has, and would then be killed; set less with "
    "these flags";

constexpr char kAnyPort[] = "127.0.0.1:0";

bool HasName(const std::vector<std::string>& settings, const std::string& name) {
  return std::any_of(settings.begin(), settings.end(),
                     [&name](const std::string& setting) { return absl::StartsWith(setting, name + "="); });
}

bool HasDemo(const LayerSources& sources) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::path(sources.directory) / "demo";
  return HasName(sources.layers, "demo") ||
         (!sources.directory.empty() && std::filesystem::is_directory(folder, error));
}

// `--playground`: attention in a browser, on this machine alone. The HTTP door on a free port of loopback unless it has
// one, all services at that door, a layer `demo` of seeded weights with four heads unless the configuration has one of
// that name, and, where the usual address of gRPC is taken, gRPC on a free port.
ServerConfig Playground(ServerConfig config) {
  if (config.http.listen.empty()) config.http.listen = kAnyPort;
  config.http.services = {"attention", "layers"};
  if (!HasDemo(config.layer_sources)) {
    config.layer_sources.layers.emplace_back("demo=init:7:64");
    if (!HasName(config.layer_sources.configs, "demo")) {
      config.layer_sources.configs.emplace_back("demo={\"num_heads\": 4}");
    }
  }
  if (config.listen == ServerConfig().listen && !ListenOn(config.listen.front()).ok()) config.listen = {kAnyPort};
  return config;
}

void LogStart(const ServerConfig& config, const AttentionServer& server, Log& log) {
  for (std::size_t i = 0; i < server.ports().size(); ++i) {
    log.Info("listening", {{"address", config.listen[i]},
                           {"bound", server.addresses()[i]},
                           {"port", std::int64_t{server.ports()[i]}},
                           {"tls", std::string(config.tls.certificate_path.empty() ? "off"
                                               : config.tls.client_ca_path.empty() ? "on"
                                                                                   : "mutual")}});
  }
  std::vector<std::string> addresses = config.listen;
  if (server.http_port() != 0) addresses.push_back(config.http.listen);
  for (const std::string& listen : addresses) {
    if (!config.tls.certificate_path.empty() || IsLoopback(listen)) continue;
    log.Warning("plaintext beyond this machine: whoever reads the network reads tensors and tokens",
                {{"address", listen}});
  }
  const MemoryBounds bounds = ReadMemoryBounds();
  if (const MemoryPlan plan = PlanMemory(config); plan.Exceeds(bounds)) {
    log.Warning(kTooMuchMemory, {{"plan", plan.Text(bounds)}});
  }
  log.Info("serving", {{"version", std::string(kVersion)},
                       {"threads", std::int64_t{config.threads}},
                       {"polling_threads", std::int64_t{config.polling_threads}},
                       {"instruction_set", std::string(InstructionSetName(server.kernels().instruction_set))}});
}

std::vector<int> AllPorts(const AttentionServer& server) {
  std::vector<int> ports = server.ports();
  if (server.http_port() != 0) ports.push_back(server.http_port());
  if (server.admin_port() != 0) ports.push_back(server.admin_port());
  return ports;
}

// For a person, or a script that opens a browser.
void PrintPageAddress(const ServerConfig& config, int port) {
  const std::string host = config.http.listen.substr(0, config.http.listen.rfind(':'));
  std::cout << (config.tls.certificate_path.empty() ? "http://" : "https://") << host << ":" << port << "/"
            << std::endl;
}

void Tell(const ServiceManager& manager, std::string_view state, Log& log) {
  const absl::Status told = manager.Tell(state);
  if (!told.ok()) log.Warning("the service manager cannot be told", {{"error", std::string(told.message())}});
}

absl::StatusOr<std::unique_ptr<AttentionServer>> Start(const ServerConfig& config, Log& log) {
  RaiseOpenFileLimit();
  if (absl::Status enough = CheckFreeDescriptors(); !enough.ok()) return enough;
  return AttentionServer::Start(config, log);
}

int Serve(const ParsedFlags& flags, const ShutdownSignals& signals, const ServiceManager& manager) {
  const ServerConfig& config = flags.config;
  Log log({.format = config.log_format == "json" ? LogFormat::kJson : LogFormat::kText,
           .level = ParseLogLevel(config.log_level)});
  const GrpcLogRoute grpc_log(log);
  for (const std::string& warning : flags.warnings) log.Warning(warning);

  auto server = Start(config, log);
  absl::Status started = server.status();
  if (started.ok()) LogStart(config, **server, log);
  log.Flush();  // Whoever finds the port finds the log's first lines.
  if (started.ok() && !config.port_file.empty()) started = WritePortFile(config.port_file, AllPorts(**server));
  if (started.ok() && config.http.playground) PrintPageAddress(config, (*server)->http_port());
  if (!started.ok()) {
    log.Error(std::string_view(started.message().data(), started.message().size()));
    return absl::IsInvalidArgument(started) ? 2 : 1;
  }

  ExplainTermination(Phase::kServing);
  Tell(manager, "READY=1", log);
  signals.Wait([&server] { (*server)->Reload(); });
  Tell(manager, "STOPPING=1", log);
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
  const MemoryBounds bounds = ReadMemoryBounds();
  const MemoryPlan plan = PlanMemory(flags.config);
  std::cout << plan.Text(bounds) << "\n";
  if (plan.Exceeds(bounds)) std::cerr << "attend-server: warning: " << kTooMuchMemory << "\n";
  std::cout << "the configuration is valid\n";
  return 0;
}

// `code`, unless what was printed did not arrive: a configuration that is half written is no success.
int CheckOutput(int code) {
  std::cout.flush();
  if (code != 0 || std::cout.good()) return code;
  std::cerr << "attend-server: cannot write to standard output\n";
  return 1;
}

int Main(const std::vector<std::string>& arguments) {
  ChooseGrpcExperiments();
  const ShutdownSignals signals;
  const ServiceManager manager;
  absl::StatusOr<ParsedFlags> flags = ParseFlags(arguments, ReadEnvironment());
  if (!flags.ok()) {
    const absl::string_view message = flags.status().message();
    std::cerr << "attend-server: " << message << "\n";
    if (!absl::StrContains(message, "--help")) std::cerr << "Try attend-server --help.\n";
    return 2;
  }
  const bool serves = !flags->output.has_value() && !flags->check_only;
  for (const std::string& warning : flags->warnings) {
    if (!serves) std::cerr << "attend-server: warning: " << warning << "\n";  // Else they go to the log.
  }
  if (flags->output.has_value()) {
    std::cout << *flags->output;
    return CheckOutput(0);
  }
  if (flags->config.http.playground) flags->config = Playground(flags->config);
  if (flags->check_only) return CheckOutput(Check(*flags));
  return Serve(*flags, signals, manager);
}

}  // namespace
}  // namespace attend::server

int main(int argc, char** argv) {
  attend::server::ExplainTermination(attend::server::Phase::kStart);
  // Debian builds Abseil with its lock-order detector live: one lock for all locks, and a wrong guess ends the process.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  return attend::server::Main(std::vector<std::string>(argv + 1, argv + argc));
}
