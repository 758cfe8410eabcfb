#include "server/metrics/call_metrics.h"

#include <google/protobuf/descriptor.h>

#include <utility>

#include "server/metrics/duration_histogram.h"

namespace attend::server {
namespace {

// The counters of one method.
constexpr std::size_t kStarted = 0;
constexpr std::size_t kReceived = 1;
constexpr std::size_t kReceivedBytes = 2;
constexpr std::size_t kSent = 3;
constexpr std::size_t kSentBytes = 4;
constexpr std::size_t kHandled = 5;  // One for each code.
constexpr std::size_t kSeconds = kHandled + kGrpcCodes;
constexpr std::size_t kPerMethod = kSeconds + DurationHistogram::kCounters;

std::string TypeOf(const std::string& service, const std::string& method) {
  const auto* descriptor = google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(service + "." + method);
  if (descriptor == nullptr) return "unary";
  if (descriptor->client_streaming()) return descriptor->server_streaming() ? "bidi_stream" : "client_stream";
  return descriptor->server_streaming() ? "server_stream" : "unary";
}

}  // namespace

CallMetrics::CallMetrics(const std::vector<std::string>& paths) : counters_((paths.size() + 1) * kPerMethod) {
  for (const std::string& path : paths) {
    const std::size_t slash = path.rfind('/');
    const std::string service = path.substr(1, slash - 1), method = path.substr(slash + 1);
    methods_.push_back({.type = TypeOf(service, method), .service = service, .name = method});
  }
  methods_.push_back({.type = "unary", .service = "unknown", .name = "unknown"});
}

MetricLabels CallMetrics::Method::Labels() const {
  return {{"grpc_type", type}, {"grpc_service", service}, {"grpc_method", name}};
}

std::size_t CallMetrics::At(int method_id) const {
  return (method_id < 0 ? methods_.size() - 1 : static_cast<std::size_t>(method_id)) * kPerMethod;
}

void CallMetrics::OnStarted(const InboundCall& call) { counters_.Here().Add(At(call.method_id()) + kStarted); }

void CallMetrics::OnFinished(const InboundCall& call, const absl::Status& status) {
  const std::size_t at = At(call.method_id());
  const ShardedCounters::Shard here = counters_.Here();
  const auto code = static_cast<std::size_t>(status.code());
  here.Add(at + kHandled + (code < kGrpcCodes ? code : static_cast<std::size_t>(absl::StatusCode::kUnknown)));
  DurationHistogram::Observe(here, at + kSeconds, Clock::now() - call.arrival());
  if (call.is_stream()) return;  // Its messages are counted as they come.
  if (call.request_bytes() > 0 || status.ok()) {
    here.Add(at + kReceived);
    here.Add(at + kReceivedBytes, static_cast<std::uint64_t>(call.request_bytes()));
  }
  if (status.ok()) {
    here.Add(at + kSent);
    here.Add(at + kSentBytes, static_cast<std::uint64_t>(call.response_bytes()));
  }
}

void CallMetrics::OnStreamMessage(const InboundCall& call, bool received, std::size_t bytes) {
  const std::size_t at = At(call.method_id());
  const ShardedCounters::Shard here = counters_.Here();
  here.Add(at + (received ? kReceived : kSent));
  here.Add(at + (received ? kReceivedBytes : kSentBytes), bytes);
}

void CallMetrics::WriteCounter(std::size_t offset, const std::string& name, const std::string& help,
                               Exposition& page) const {
  page.Counter(name, help);
  for (std::size_t i = 0; i < methods_.size(); ++i) {
    page.Add(methods_[i].Labels(), static_cast<double>(counters_.Sum(i * kPerMethod + offset)));
  }
}

void CallMetrics::Write(Exposition& page) const {
  // Before what is started, so that no scrape shows more ends than starts.
  page.Counter("grpc_server_handled_total", "Calls that have ended, refused ones included.");
  for (std::size_t i = 0; i < methods_.size(); ++i) {
    for (std::size_t code = 0; code < kGrpcCodes; ++code) {
      MetricLabels labels = methods_[i].Labels();
      labels.push_back({"grpc_code", kGrpcCodeNames[code]});
      page.Add(std::move(labels), static_cast<double>(counters_.Sum(i * kPerMethod + kHandled + code)));
    }
  }
  WriteCounter(kStarted, "grpc_server_started_total", "Calls that have arrived.", page);
  WriteCounter(kReceived, "grpc_server_msg_received_total", "Messages received.", page);
  WriteCounter(kReceivedBytes, "grpc_server_msg_received_bytes_total", "Bytes of the messages received.", page);
  WriteCounter(kSent, "grpc_server_msg_sent_total", "Messages sent.", page);
  WriteCounter(kSentBytes, "grpc_server_msg_sent_bytes_total", "Bytes of the messages sent.", page);
  page.Histogram("grpc_server_handling_seconds", "From a call's arrival to its end on this server.");
  for (std::size_t i = 0; i < methods_.size(); ++i) {
    DurationHistogram::Write(counters_, i * kPerMethod + kSeconds, methods_[i].Labels(), page);
  }
}

}  // namespace attend::server
