#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "server/metrics/server_metrics.h"

namespace attend::server {
namespace {

// Tenants with labels of their own: the first, whose labels they keep, so that counters never fall. All others are one,
// whose label is no tenant's name.
constexpr std::size_t kMostLabels = 20;
constexpr char kOthers[] = "_other";

// One tenant, or the sum of several.
struct Usage {
  std::string label;
  double requests_in_flight = 0;
  double memory_bytes = 0;
  double layers_bytes = 0;
  double computed = 0;
  double compute_seconds = 0;
  double refusals = 0;

  void Add(const Usage& other) {
    requests_in_flight += other.requests_in_flight;
    memory_bytes += other.memory_bytes;
    layers_bytes += other.layers_bytes;
    computed += other.computed;
    compute_seconds += other.compute_seconds;
    refusals += other.refusals;
  }
};

Usage UsageOf(const Tenant& tenant, const LayerStore& layers) {
  return {.label = tenant.name(),
          .requests_in_flight = static_cast<double>(tenant.requests_in_flight()),
          .memory_bytes = static_cast<double>(tenant.memory_bytes()),
          .layers_bytes = static_cast<double>(layers.bytes().OfTenant(tenant.name())),
          .computed = static_cast<double>(tenant.requests_computed()),
          .compute_seconds = std::chrono::duration<double>(tenant.compute_time()).count(),
          .refusals = static_cast<double>(tenant.refusals())};
}

std::vector<Usage> Rows(const MetricSources& sources) {
  std::vector<Usage> rows;
  for (const TenantRef& tenant : sources.tenants->All()) rows.push_back(UsageOf(*tenant, *sources.layers));
  Usage others{.label = kOthers};
  // Stored layers may be of tenants that no file names any more. What changes while this looks may be in one sum alone.
  double layers = static_cast<double>(sources.layers->bytes().held());
  for (const Usage& row : rows) layers -= row.layers_bytes;
  others.layers_bytes = std::max(layers, 0.0);
  for (std::size_t i = kMostLabels; i < rows.size(); ++i) others.Add(rows[i]);
  if (rows.size() > kMostLabels) rows.resize(kMostLabels);
  rows.push_back(others);
  return rows;
}

}  // namespace

void WriteTenants(const MetricSources& sources, Exposition& page) {
  const std::vector<Usage> rows = Rows(sources);
  const auto add = [&](double Usage::*value) {
    for (const Usage& row : rows) page.Add({{"tenant", row.label}}, row.*value);
  };
  page.Gauge("attend_tenant_requests_in_flight",
             "Requests that compute, or wait to, by tenant; those named after the first 20 are _other.");
  add(&Usage::requests_in_flight);
  page.Gauge("attend_tenant_memory_bytes", "Memory of requests, answers and uploads in flight, by tenant.");
  add(&Usage::memory_bytes);
  page.Gauge("attend_tenant_layers_bytes", "Memory of layers, by tenant.");
  add(&Usage::layers_bytes);
  page.Counter("attend_tenant_requests_total", "Requests that began to compute and ended, by tenant.");
  add(&Usage::computed);
  page.Counter(
      "attend_tenant_compute_seconds_total",
      "Time that requests' own threads decoded and computed, by tenant, without that of idle threads that helped.");
  add(&Usage::compute_seconds);
  page.Counter("attend_tenant_refusals_total",
               "Requests and uploads that a quota of their tenant refused (TENANT_QUOTA).");
  add(&Usage::refusals);
}

}  // namespace attend::server
