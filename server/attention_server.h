// The whole server as one object: executor, admission, services and call engine, put together from a configuration.
//
// Thread-safe after Start, except that Drain is called at most once.
#ifndef ATTEND_SERVER_ATTENTION_SERVER_H_
#define ATTEND_SERVER_ATTENTION_SERVER_H_

#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "core/base/mutex.h"
#include "core/runtime/executor.h"
#include "server/admin_door.h"
#include "server/base/logging.h"
#include "server/config/server_config.h"
#include "server/config/tls_pair.h"
#include "server/connect/http_door.h"
#include "server/http/http_tls.h"
#include "server/identity/authenticator.h"
#include "server/layer_store/layer_store.h"
#include "server/metrics/server_metrics.h"
#include "server/reloader.h"
#include "server/rpc/admission.h"
#include "server/rpc/audit.h"
#include "server/rpc/call_engine.h"
#include "server/rpc/memory_budget.h"
#include "server/rpc/request_run.h"
#include "server/services/attend_services.h"
#include "server/services/health_service.h"
#include "server/services/reflection_service.h"
#include "server/tls_reload.h"

namespace attend::server {

class AttentionServer {
 public:
  // Loads the configured and the stored layers, then starts to serve. `log` must outlive the server. `observer` is for
  // tests. Errors: INVALID_ARGUMENT naming the flag, FAILED_PRECONDITION for a data folder that cannot be used,
  // RESOURCE_EXHAUSTED when more layers are stored than the limits allow, UNAVAILABLE for an address that cannot be
  // bound.
  static absl::StatusOr<std::unique_ptr<AttentionServer>> Start(const ServerConfig& config, Log& log,
                                                                StorageObserver observer = nullptr);

  // Stops without waiting, if Drain was not called.
  ~AttentionServer() = default;

  // The ports bound, in the order of ServerConfig::listen.
  const std::vector<int>& ports() const { return engine_->ports(); }
  // What each of ServerConfig::listen stands for, as CallEngine::addresses.
  const std::vector<std::string>& addresses() const { return engine_->addresses(); }

  // What requests are computed with.
  const KernelChoice& kernels() const { return services_.kernels; }

  // The port of HttpConfig::listen; 0 when there is no such door.
  int http_port() const { return http_ == nullptr ? 0 : http_->port(); }

  // The port of ServerConfig::admin_listen; 0 when there is no such door.
  int admin_port() const { return admin_ == nullptr ? 0 : admin_->port(); }

  // Stops as a good service does: health goes to NOT_SERVING, calls are taken for `drain_wait` more, then the listeners
  // close and the calls in flight have `drain_timeout` to finish.
  void Drain();

  // Makes a Drain that is under way, or still to come, return soon: no more waiting, calls are cancelled.
  void ForceStop();

  // Looks at the files that may change while it serves: those of TLS and of principals.
  // Returns at once; what happens is logged.
  void Reload();

 private:
  AttentionServer(const ServerConfig& config, const KernelChoice& kernels, std::unique_ptr<LayerStore> layers,
                  Log& log);
  MethodTable MakeMethods();
  CallEngine::Options::Guard MakeGuard();
  void LogEnded(const EndedConnection& ended);
  absl::Status StartEngine(CallEngine::Options options);
  // Opens the HTTP door, if there is to be one. REQUIRES: the engine has started.
  absl::Status OpenHttpDoor();
  // Shows this server at `door`, from now on its own.
  void ShowAt(std::unique_ptr<AdminDoor> door);
  MetricSources Sources() const;
  // REQUIRES: the doors are open.
  void PrepareTlsReload();
  void ReloadFiles();
  void AuditReload(const std::string& what, const absl::StatusOr<bool>& reloaded, bool door_is_behind,
                   std::string& last_error);
  // Waits for `drain_wait`, or for ForceStop: true then.
  bool WaitForForceStop() ABSL_LOCKS_EXCLUDED(stop_mu_);

  const ServerConfig config_;
  Log& log_;
  Audit audit_;
  LogRateLimit ended_lines_{1, std::chrono::seconds(10)};
  Mutex stop_mu_;
  bool force_stop_ ABSL_GUARDED_BY(stop_mu_) = false;
  CondVar stop_;
  // Destroyed in reverse: first the engine, which ends all calls; the executors last but for what their tasks use.
  MemoryBudget memory_;
  const std::unique_ptr<LayerStore> layers_;
  ServingState health_;
  Reflection reflection_;
  Executor executor_;
  Admission admission_;
  RequestServices services_;
  UploadSlots upload_slots_;
  Executor upload_executor_;
  UploadServices uploads_;
  std::unique_ptr<Authenticator> authenticator_;
  std::unique_ptr<ServerMetrics> metrics_;  // Null without the admin door.
  std::shared_ptr<TlsPair> tls_;            // Null for plaintext; what gRPC reads for as long as the engine lives.
  std::unique_ptr<CallEngine> engine_;
  std::shared_ptr<HttpTls> http_tls_;    // The same for the HTTP door.
  std::unique_ptr<HttpDoor> http_;       // Null when there is none.
  std::optional<TlsReload> tls_reload_;  // The reloader's thread's; nothing for plaintext.
  // The last ones, so that each is logged once; the reloader's thread's.
  std::string tls_error_;
  std::string principals_error_;
  std::atomic<std::int64_t> failed_reloads_{0};
  std::unique_ptr<Reloader> reloader_;
  std::unique_ptr<AdminDoor> admin_;  // Shows all of the above.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_ATTENTION_SERVER_H_
