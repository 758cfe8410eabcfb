#include "server/base/protocol.h"
#include "server/metrics/process_metrics.h"
#include "server/metrics/server_metrics.h"

namespace attend::server {
namespace {

void WriteReady(bool ready, Exposition& page) {
  page.Gauge("attend_ready", "1 while new calls are wanted, 0 while the server loads or drains.", ready ? 1 : 0);
}

void WriteBuild(const MetricSources& sources, Exposition& page) {
  page.Gauge("attend_build_info", "1; the labels say what runs.");
  page.Add({{"version", kVersion}, {"instruction_set", std::string(InstructionSetName(sources.instruction_set))}}, 1);
  WriteReady(sources.ready(), page);
  page.Gauge("attend_compute_threads", "Threads that compute (--threads).", sources.limits.num_threads);
}

void WriteQueue(const MetricSources& sources, Exposition& page) {
  const Admission::Counts tasks = sources.admission->counts();
  page.Gauge("attend_queue_depth", "Requests that wait for a compute thread or are being decoded by one.",
             static_cast<double>(tasks.queued - tasks.started - tasks.dropped));
  page.Gauge("attend_queue_limit", "Requests that may wait (--max-queued-requests).",
             sources.limits.max_queued_requests);
  page.Gauge("attend_queue_wait_seconds", "How long a request that came now would wait, as predicted.",
             sources.admission->WaitMs() * 1e-3);
  page.Gauge("attend_computing_requests", "Requests that compute threads work on.",
             static_cast<double>(tasks.started - tasks.finished - tasks.stopped));
  page.Counter("attend_dropped_requests_total", "Requests that waited and were not computed: gone, late or in error.");
  page.Add({}, static_cast<double>(tasks.dropped));
  page.Gauge("attend_calls_in_flight", "Calls that have arrived and not ended.",
             sources.engine->calls_in_flight() + (sources.http == nullptr ? 0 : sources.http->calls()));
}

void WriteMemory(const MetricSources& sources, Exposition& page) {
  using User = MemoryBudget::User;
  page.Gauge("attend_memory_bytes", "Memory that is accounted for, by what takes it.");
  page.Add({{"user", "requests"}}, static_cast<double>(sources.memory->in_use_bytes(User::kRequests)));
  page.Add({{"user", "uploads"}}, static_cast<double>(sources.memory->in_use_bytes(User::kUploads)));
  // As --max-layers-bytes counts them: also those being made, and deleted ones that requests still use. Exceeds the
  // limit while a layer is replaced, because the limit leaves out the old one's bytes.
  page.Add({{"user", "layers"}}, static_cast<double>(sources.layers->bytes().held()));
  page.Gauge(
      "attend_memory_limit_bytes",
      "What it may take: in_flight is for requests and uploads (--max-memory-in-flight-bytes), layers for layers "
      "(--max-layers-bytes).");
  page.Add({{"budget", "in_flight"}}, static_cast<double>(sources.memory->limit_bytes()));
  page.Add({{"budget", "layers"}}, static_cast<double>(sources.layers->limits().max_layers_bytes));
}

void WriteLayers(const MetricSources& sources, Exposition& page) {
  page.Gauge("attend_layers", "Layers that can be called.", static_cast<double>(sources.layers->registry().size()));
  page.Gauge("attend_layers_limit", "Layers that may be kept (--max-layers).", sources.layers->limits().max_layers);
  page.Gauge("attend_uploads", "Uploads of layers under way.", sources.uploads->in_use());
  page.Gauge("attend_uploads_limit", "Uploads that may be under way (--max-uploads).", sources.uploads->max_uploads());
}

void WriteConnections(const MetricSources& sources, Exposition& page) {
  page.Gauge("attend_connections", "Open connections, by door.");
  page.Add({{"door", "admin"}}, static_cast<double>(sources.admin_connections()));
  page.Add({{"door", "grpc"}}, sources.engine->open_connections());
  if (sources.http != nullptr) page.Add({{"door", "http"}}, static_cast<double>(sources.http->connections()));
  page.Counter(
      "attend_refused_connections_total",
      "Connections to the gRPC door that were closed because there were too many (--max-connections), or because they "
      "never stopped sending and so kept others from being accepted.");
  page.Add({}, static_cast<double>(sources.engine->refused_connections()));
  page.Counter(
      "attend_ended_connections_total",
      "Connections to the gRPC door that were shut down because what they sent became no calls and took memory that "
      "nothing counts, or kept a polling thread, or because their calls had too much metadata.");
  for (const EndReason reason : kEndReasons) {
    page.Add({{"reason", std::string(EndReasonName(reason))}},
             static_cast<double>(sources.engine->ended_connections(reason)));
  }
}

void WriteCertificate(const MetricSources& sources, Exposition& page) {
  if (sources.certificate_expiry == nullptr) return;
  page.Gauge("attend_tls_certificate_expiry_timestamp_seconds",
             "When the certificate in --tls-cert expires, since 1970; 0 when the TLS files could not be used when they "
             "were last "
             "looked at, so that the server goes on with those it had.",
             static_cast<double>(sources.certificate_expiry()));
}

}  // namespace

std::string LoadingMetrics() {
  Exposition page;
  WriteReady(/*ready=*/false, page);
  WriteProcessMetrics(page);
  return page.Text();
}

void WriteServerState(const MetricSources& sources, Exposition& page) {
  WriteBuild(sources, page);
  WriteQueue(sources, page);
  WriteMemory(sources, page);
  WriteLayers(sources, page);
  WriteConnections(sources, page);
  WriteCertificate(sources, page);
  WriteTenants(sources, page);
  page.Counter("attend_reload_failures_total",
               "Times that files of TLS or principals were looked at and could not be used, so that the last stay in "
               "force.");
  page.Add({}, static_cast<double>(sources.failed_reloads()));
  page.Counter("attend_log_dropped_lines_total", "Lines of the log that were dropped because nobody read them.");
  page.Add({}, static_cast<double>(sources.dropped_log_lines()));
}

}  // namespace attend::server
