#include "server/attention_server.h"

#include <sys/resource.h>

#include <algorithm>
#include <climits>
#include <string>
#include <utility>

#include "core/base/error.h"
#include "server/config/configured_layers.h"
#include "server/config/start_settings.h"
#include "server/rpc/trace_context.h"

namespace attend::server {
namespace {

// For writing and packing uploads: two, so that a small one need not wait for a large one.
constexpr int kUploadThreads = 2;

std::vector<std::string> ServiceNames() {
  return {"attend.v1.AttentionService", "attend.v1.LayerService", "grpc.health.v1.Health",
          "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"};
}

// With as many compute threads as cores, the polling threads would wait for a core until the scheduler's next turn.
// They need it for microseconds: to refuse, to notice that a caller has gone, to serve what is small. Measured at ten
// times too much load on one core, this takes the slowest hundredth of refusals from 3.7 to 1.5 ms at the same goodput.
constexpr int kComputeNice = 5;

// Descriptors for everything but connections: listeners, logs, files of layers, gRPC's own.
constexpr int kOtherDescriptors = 64;
constexpr int kAdminConnections = 256;  // HttpServer::Options::max_connections.

constexpr absl::Duration kLongestWait = absl::Hours(24 * 365);

// At least as many connections as other descriptors, whatever the limit of open files.
int ConnectionsThatFit(const ServerConfig& config) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > INT_MAX) return INT_MAX;
  const int others = kOtherDescriptors + (config.admin_listen.empty() ? 0 : kAdminConnections);
  const int fit = std::max(static_cast<int>(limit.rlim_cur) - others, static_cast<int>(limit.rlim_cur) / 2);
  return config.http.listen.empty() ? fit : fit / 2;  // Half for each of the doors that strangers reach.
}

// Of a request to the HTTP door, for a small one to come whole: what an idle connection there costs.
constexpr std::size_t kFirstReadBytes = 1536;

HttpDoor::Options HttpDoorOptions(const ServerConfig& config, const MemoryBudget& memory, const TrustedProxies& proxies,
                                  std::shared_ptr<HttpTls> tls) {
  HttpDoor::Options options{.hosts = config.http.hosts, .origins = config.http.allowed_origins};
  for (const std::string& name : config.http.services) {
    options.services.emplace_back(name == "layers" ? "attend.v1.LayerService" : "attend.v1.AttentionService");
  }
  options.max_json_bytes = static_cast<std::size_t>(config.http.max_json_bytes);
  HttpServer::Options& http = options.http;
  http.flag = "--http-listen";
  http.listen = config.http.listen;
  // One call at a time on each, so that no more calls than --max-calls have begun.
  http.max_connections =
      static_cast<std::size_t>(std::min({config.max_connections, ConnectionsThatFit(config), config.calls.max_calls}));
  http.max_header_bytes = static_cast<std::size_t>(config.transport.max_metadata_bytes);
  http.bodies = true;
  http.first_read_bytes = kFirstReadBytes;
  http.body_timeout = absl::ToChronoNanoseconds(std::min(config.calls.first_message_timeout, kLongestWait));
  http.write_timeout = absl::ToChronoNanoseconds(std::min(config.calls.stalled_answer_timeout, kLongestWait));
  http.handshake_timeout = absl::ToChronoNanoseconds(std::min(config.transport.handshake_timeout, kLongestWait));
  http.max_age = absl::ToChronoNanoseconds(std::min(config.transport.max_connection_age, kLongestWait));
  http.min_bytes_per_second = static_cast<std::size_t>(config.calls.min_bytes_per_second);
  http.memory = &memory;
  http.proxies = proxies;
  http.tls = std::move(tls);
  return options;
}

double Milliseconds(Clock::duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); }

// One line per call, for those who asked for debug.
void LogCall(Log& log, const InboundCall& call, const absl::Status& status) {
  const CallTiming& timing = call.timing();
  const std::vector<LogField> fields =
      TraceContextOf(call).With({{"method", call.method()},
                                 {"code", absl::StatusCodeToString(status.code())},
                                 {"peer", call.peer()},
                                 {"duration_ms", Milliseconds(Clock::now() - call.arrival())},
                                 {"receive_ms", Milliseconds(timing.receive)},
                                 {"queue_ms", Milliseconds(timing.queue)},
                                 {"compute_ms", Milliseconds(timing.compute)},
                                 {"send_ms", Milliseconds(timing.send)},
                                 {"request_bytes", call.request_bytes()},
                                 {"response_bytes", call.response_bytes()}});
  log.WriteFields(spdlog::level::debug, "call finished", fields);
}

// Null when none is asked for.
absl::StatusOr<std::unique_ptr<AdminDoor>> OpenAdminDoor(const ServerConfig& config, Log& log) {
  if (config.admin_listen.empty()) return nullptr;
  auto door = AdminDoor::Open(config.admin_listen, LoadingMetrics);
  if (door.ok()) {
    log.Info(
        "admin door open",
        {{"address", config.admin_listen}, {"bound", (*door)->address()}, {"port", std::int64_t{(*door)->port()}}});
  }
  return door;
}

// What became of everything, for those who ask whether anything was lost.
void LogDrained(Log& log, const CallEngine& engine, const Admission::Counts& tasks, std::int64_t memory_in_use) {
  log.Write(spdlog::level::debug, "drained",
            {{"calls_created", engine.calls_created()},
             {"calls_released", engine.calls_released()},
             {"memory_in_flight_bytes", memory_in_use},
             {"tasks_queued", tasks.queued},
             {"tasks_started", tasks.started},
             {"tasks_finished", tasks.finished},
             {"tasks_stopped", tasks.stopped},
             {"tasks_dropped", tasks.dropped},
             {"refused", tasks.refused}});
}

}  // namespace

AttentionServer::AttentionServer(const ServerConfig& config, const KernelChoice& kernels,
                                 std::unique_ptr<LayerStore> layers, Log& log)
    : config_(config),
      log_(log),
      audit_(log),
      memory_(config.limits.max_memory_in_flight_bytes),
      layers_(std::move(layers)),
      health_({"attend.v1.AttentionService", "attend.v1.LayerService"}),
      reflection_(ServiceNames(), *google::protobuf::DescriptorPool::generated_pool()),
      executor_({.num_threads = config.threads,
                 // Admission counts them; and it may put one back for each thread.
                 .max_queued_tasks = config.limits.max_queued_requests + config.threads,
                 .nice = kComputeNice}),
      admission_(executor_, config.limits.max_queued_requests, MeasureRates(kernels.instruction_set)),
      services_{.admission = &admission_,
                .memory = &memory_,
                .limits = config.limits,
                .kernels = kernels,
                .inline_flops = config.inline_flops},
      upload_slots_(config.layers.max_uploads, config.calls.min_bytes_per_second),
      upload_executor_(
          {.num_threads = kUploadThreads, .max_queued_tasks = 2 * config.layers.max_uploads + kMaxDeletions}),
      uploads_{.store = layers_.get(),
               .slots = &upload_slots_,
               .memory = &memory_,
               .executor = &upload_executor_,
               .audit = &audit_,
               .max_request_bytes = config.limits.max_request_bytes} {
  services_.limits.num_threads = config.threads;
}

MethodTable AttentionServer::MakeMethods() {
  MethodTable methods;
  AddAttentionService(services_, *layers_, methods);
  AddLayerService(uploads_, services_, methods);
  AddHealthService(health_, services_, methods);
  AddReflectionService(reflection_, memory_, methods);
  return methods;
}

CallEngine::Options::Guard AttentionServer::MakeGuard() {
  const MemoryPlan plan = PlanMemory(config_);
  return {.limits = {.growth_bytes = plan.process / 4,
                     .most_uncounted_bytes = plan.uncounted(),
                     .max_request_bytes = config_.limits.max_request_bytes,
                     .max_metadata_bytes = config_.transport.max_metadata_bytes},
          .counted_bytes = [this] { return memory_.in_use_bytes() + layers_->bytes().held(); },
          .on_ended = [this](const EndedConnection& ended) { LogEnded(ended); }};
}

void AttentionServer::LogEnded(const EndedConnection& ended) {
  const LogRateLimit::Verdict verdict = ended_lines_.Ask(LogRateLimit::Clock::now());
  if (!verdict.pass) return;
  log_.Warning(ended.reason == EndReason::kMetadata ? "connection ended: its calls had too much metadata"
                                                    : "connection ended: what it sent became no calls",
               {{"peer", ended.peer},
                {"reason", std::string(EndReasonName(ended.reason))},
                {"read_bytes", ended.read_bytes},
                {"handed_bytes", ended.handed_bytes},
                {"calls", ended.calls},
                {"left_out", verdict.held_back}});
}

absl::Status AttentionServer::StartEngine(CallEngine::Options options) {
  MethodTable methods = MakeMethods();
  if (!config_.admin_listen.empty()) {
    metrics_ = std::make_unique<ServerMetrics>(methods.Paths(), services_.kernels.instruction_set);
    metrics_->Watch(options, services_);
  }
  auto engine = CallEngine::Start(std::move(options), std::move(methods));
  if (!engine.ok()) return engine.status();
  engine_ = *std::move(engine);
  return absl::OkStatus();
}

absl::Status AttentionServer::OpenHttpDoor() {
  if (config_.http.listen.empty()) return absl::OkStatus();
  if (tls_ != nullptr) {
    const bool mutual = !config_.tls.client_ca_path.empty();
    auto tls = HttpTls::Load(
        tls_->identity_path(), mutual ? tls_->authorities_path() : "",
        [revoked = tls_->revocations()](const std::string& certificate) { return revoked->Has(certificate); });
    if (!tls.ok()) return tls.status();
    http_tls_ = *std::move(tls);
  }
  auto door = HttpDoor::Open(HttpDoorOptions(config_, memory_, engine_->options().proxies, http_tls_),
                             engine_->methods(), services_, engine_->options());
  if (!door.ok()) return door.status();
  http_ = *std::move(door);
  log_.Info("HTTP door open",
            {{"address", config_.http.listen}, {"bound", http_->address()}, {"port", std::int64_t{http_->port()}}});
  return absl::OkStatus();
}

MetricSources AttentionServer::Sources() const {
  std::function<std::int64_t()> certificate_expiry;
  if (tls_ != nullptr) certificate_expiry = [this] { return tls_->Expiry(); };
  return {.engine = engine_.get(),
          .http = http_.get(),
          .admission = &admission_,
          .memory = &memory_,
          .layers = layers_.get(),
          .uploads = &upload_slots_,
          .tenants = &authenticator_->tenants(),
          .limits = services_.limits,
          .instruction_set = services_.kernels.instruction_set,
          .certificate_expiry = certificate_expiry,
          .ready = [this] { return health_.IsReady(); },
          .admin_connections = [this] { return admin_->connections(); },
          .failed_reloads = [this] { return failed_reloads_.load(std::memory_order_relaxed); },
          .dropped_log_lines = [this] { return log_.dropped_lines(); }};
}

void AttentionServer::ShowAt(std::unique_ptr<AdminDoor> door) {
  admin_ = std::move(door);
  if (admin_ == nullptr) return;
  admin_->Show({.ready = [this] { return health_.IsReady(); },
                .metrics = [this, sources = Sources()] { return metrics_->Text(sources); },
                .on_tick = [this] { engine_->MeasureLoops(); }});
}

absl::StatusOr<std::unique_ptr<AttentionServer>> AttentionServer::Start(const ServerConfig& config, Log& log,
                                                                        StorageObserver observer) {
  absl::StatusOr<StartSettings> settings = ResolveStartSettings(config);
  if (!settings.ok()) return settings.status();
  auto admin = OpenAdminDoor(config, log);
  if (!admin.ok()) return admin.status();

  auto configured = LoadConfiguredLayers(config.layer_sources, settings->kernels.instruction_set,
                                         [&log](const std::string& sentence) { log.Warning(sentence); });
  if (!configured.ok()) return configured.status();
  auto layers = LayerStore::Open({.limits = config.layers,
                                  .storage = {.data_dir = config.data_dir,
                                              .max_bytes = config.max_data_dir_bytes,
                                              .observer = std::move(observer)},
                                  .instruction_set = settings->kernels.instruction_set},
                                 *std::move(configured), log);
  if (!layers.ok()) return layers.status();

  std::unique_ptr<AttentionServer> server(new AttentionServer(config, settings->kernels, *std::move(layers), log));
  CallEngine::Options options;
  options.listen = config.listen;
  options.credentials = std::move(settings->credentials);
  options.configure = [transport = config.transport](grpc::ServerBuilder& builder) {
    ApplyTransportSettings(transport, builder);
  };
  options.num_polling_threads = config.polling_threads;
  options.calls = config.calls;
  options.max_connections = std::min(config.max_connections, ConnectionsThatFit(config));
  options.memory = &server->memory_;
  server->authenticator_ = std::move(settings->authenticator);
  options.authenticator = server->authenticator_.get();
  options.proxies = std::move(settings->proxies);
  options.mutual_tls = !config.tls.client_ca_path.empty();
  options.on_denied = [&audit = server->audit_](const InboundCall& call, const absl::Status& status) {
    audit.Denied(call, GetErrorDetails(status).reason);
  };
  options.max_metadata_bytes = config.transport.max_metadata_bytes;
  if (config.transport.end_unexplained_connections) options.guard = server->MakeGuard();
  if (log.Enabled(spdlog::level::debug)) {
    options.on_finished = [&log](const InboundCall& call, const absl::Status& status) { LogCall(log, call, status); };
  }
  if (absl::Status started = server->StartEngine(std::move(options)); !started.ok()) return started;
  server->tls_ = std::move(settings->tls);
  if (absl::Status opened = server->OpenHttpDoor(); !opened.ok()) return opened;
  server->PrepareTlsReload();
  server->reloader_ =
      std::make_unique<Reloader>(absl::ToChronoMilliseconds(std::min(config.tls.refresh_interval, kLongestWait)),
                                 [server = server.get()] { server->ReloadFiles(); });
  server->ShowAt(*std::move(admin));
  return server;
}

void AttentionServer::PrepareTlsReload() {
  if (tls_ == nullptr) return;
  std::function<absl::Status()> door;
  if (http_tls_ != nullptr) door = [this] { return http_tls_->Reload(); };
  tls_reload_.emplace([this] { return tls_->Reload(); }, std::move(door));
}

void AttentionServer::Reload() { reloader_->Now(); }

void AttentionServer::ReloadFiles() {
  audit_.RecordLeftOut();
  if (tls_reload_.has_value()) {
    const bool was_behind = tls_reload_->door_is_behind();
    const absl::StatusOr<bool> reloaded = tls_reload_->Run();
    if (was_behind && !tls_reload_->door_is_behind() && !reloaded.ok()) audit_.DoorCaughtUp("TLS files");
    AuditReload("TLS files", reloaded, tls_reload_->door_is_behind(), tls_error_);
  }
  AuditReload("principals", authenticator_->Reload(), /*door_is_behind=*/false, principals_error_);
}

void AttentionServer::AuditReload(const std::string& what, const absl::StatusOr<bool>& reloaded, bool door_is_behind,
                                  std::string& last_error) {
  const std::string error(reloaded.status().message());
  if (!reloaded.ok()) failed_reloads_.fetch_add(1, std::memory_order_relaxed);
  if ((reloaded.ok() && *reloaded) || (!reloaded.ok() && error != last_error)) {
    door_is_behind ? audit_.DoorIsBehind(what, error) : audit_.Reloaded(what, error);
  }
  last_error = error;
}

bool AttentionServer::WaitForForceStop() {
  // A wait without end would overflow the clock.
  const absl::Duration wait = std::min(config_.drain_wait, kLongestWait);
  const Clock::time_point end = Clock::now() + absl::ToChronoNanoseconds(wait);
  const MutexLock lock(stop_mu_);
  while (!force_stop_ && stop_.WaitUntil(stop_mu_, end)) {
  }
  return force_stop_;
}

void AttentionServer::Drain() {
  log_.Info("draining", {{"wait", absl::FormatDuration(config_.drain_wait)},
                         {"timeout", absl::FormatDuration(config_.drain_timeout)},
                         {"calls_in_flight", std::int64_t{engine_->calls_in_flight()}}});
  health_.Drain();
  const absl::Duration timeout = WaitForForceStop() ? absl::ZeroDuration() : config_.drain_timeout;
  const Clock::time_point start = Clock::now();
  if (http_ != nullptr) http_->StartDrain();
  engine_->Drain(timeout);
  if (http_ != nullptr)
    http_->FinishDrain(std::max(timeout - absl::FromChrono(Clock::now() - start), absl::ZeroDuration()));
  LogDrained(log_, *engine_, admission_.counts(), memory_.in_use_bytes());
}

void AttentionServer::ForceStop() {
  {
    const MutexLock lock(stop_mu_);
    force_stop_ = true;
  }
  stop_.SignalAll();
  engine_->CancelAllCalls();
  if (http_ != nullptr) http_->CancelAllCalls();
}

}  // namespace attend::server
