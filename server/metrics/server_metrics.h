// All of a server's metrics: counts that calls leave behind, and what the server's parts say of themselves when
// somebody asks.
#ifndef ATTEND_SERVER_METRICS_SERVER_METRICS_H_
#define ATTEND_SERVER_METRICS_SERVER_METRICS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/kernels/instruction_set.h"
#include "server/connect/http_door.h"
#include "server/layer_store/layer_store.h"
#include "server/metrics/call_metrics.h"
#include "server/metrics/exposition.h"
#include "server/metrics/work_metrics.h"
#include "server/rpc/admission.h"
#include "server/rpc/call_engine.h"
#include "server/rpc/memory_budget.h"
#include "server/rpc/request_run.h"
#include "server/services/upload_slots.h"

namespace attend::server {

// The parts that are asked. All must outlive whoever asks.
struct MetricSources {
  const CallEngine* engine = nullptr;
  const HttpDoor* http = nullptr;  // Null where there is none.
  const Admission* admission = nullptr;
  const MemoryBudget* memory = nullptr;
  const LayerStore* layers = nullptr;
  const UploadSlots* uploads = nullptr;
  const Tenants* tenants = nullptr;
  Limits limits;
  InstructionSet instruction_set = InstructionSet::kBaseline;
  std::function<std::int64_t()> certificate_expiry;  // TlsPair::Expiry; empty without TLS.
  std::function<bool()> ready;                       // Whether new calls are wanted.
  std::function<std::int64_t()> admin_connections;
  std::function<std::int64_t()> failed_reloads;
  std::function<std::int64_t()> dropped_log_lines;
};

// Thread-safe.
class ServerMetrics {
 public:
  // `paths`: MethodTable::Paths.
  ServerMetrics(const std::vector<std::string>& paths, InstructionSet instruction_set)
      : calls_(paths), work_(instruction_set) {}

  // Adds this object to those that are told. It must outlive every call. REQUIRES: no call has started.
  void Watch(CallEngine::Options& options, RequestServices& services);

  // What a scrape gets, in Prometheus' text format.
  std::string Text(const MetricSources& sources) const;

 private:
  CallMetrics calls_;
  WorkMetrics work_;
};

// What a scrape gets of a server that is still loading: that it is not ready, and the process, so that starts which
// come to nothing are seen. Thread-safe.
std::string LoadingMetrics();

// Gauges of the server's parts. Thread-safe.
void WriteServerState(const MetricSources& sources, Exposition& page);

// What tenants use, with a bounded number of labels. Thread-safe.
void WriteTenants(const MetricSources& sources, Exposition& page);

}  // namespace attend::server

#endif  // ATTEND_SERVER_METRICS_SERVER_METRICS_H_
