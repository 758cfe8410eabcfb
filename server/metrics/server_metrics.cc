#include "server/metrics/server_metrics.h"

#include <utility>

#include "server/metrics/process_metrics.h"

namespace attend::server {

void ServerMetrics::Watch(CallEngine::Options& options, RequestServices& services) {
  options.on_started = [this](const InboundCall& call) { calls_.OnStarted(call); };
  options.on_stream_message = [this](const InboundCall& call, bool received, std::size_t bytes) {
    calls_.OnStreamMessage(call, received, bytes);
  };
  options.on_loop_delay = [this](Clock::duration delay) { work_.OnLoopDelay(delay); };
  options.on_finished = [this, next = std::move(options.on_finished)](const InboundCall& call,
                                                                      const absl::Status& status) {
    calls_.OnFinished(call, status);
    if (!status.ok()) work_.OnError(status);
    if (next) next(call, status);
  };
  services.on_computed = [this](const ComputedRequest& request) { work_.OnComputed(request); };
  services.on_stream_answer = [this](const absl::Status& status) { work_.OnStreamAnswer(status); };
}

std::string ServerMetrics::Text(const MetricSources& sources) const {
  Exposition page;
  calls_.Write(page);
  work_.Write(page);
  WriteServerState(sources, page);
  WriteProcessMetrics(page);
  return page.Text();
}

}  // namespace attend::server
