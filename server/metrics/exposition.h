// What one scrape answers with: families of metrics in Prometheus' text format, as prometheus-cpp writes it.
//
//   Exposition page;
//   page.Counter("attend_refusals_total", "Calls that were refused, by reason.");
//   page.Add({{"reason", "QUEUE_FULL"}}, 3);
//   page.Text();
//
// Thread-compatible.
#ifndef ATTEND_SERVER_METRICS_EXPOSITION_H_
#define ATTEND_SERVER_METRICS_EXPOSITION_H_

#include <prometheus/client_metric.h>
#include <prometheus/metric_family.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace attend::server {

using MetricLabels = std::vector<prometheus::ClientMetric::Label>;

class Exposition {
 public:
  // Starts a family, to which the calls of Add below belong.
  void Counter(const std::string& name, const std::string& help);
  void Gauge(const std::string& name, const std::string& help);
  void Histogram(const std::string& name, const std::string& help);

  // REQUIRES: a counter's or a gauge's family was started.
  void Add(MetricLabels labels, double value);
  // A family of one gauge.
  void Gauge(const std::string& name, const std::string& help, double value);

  // `counts` has one number for each of `upper_bounds`, which ascend, and one for what is above: not cumulated.
  // REQUIRES: a histogram's family was started.
  void Add(MetricLabels labels, absl::Span<const double> upper_bounds, absl::Span<const std::uint64_t> counts,
           double sum);

  std::string Text() const;

 private:
  void Start(const std::string& name, const std::string& help, prometheus::MetricType type);

  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_METRICS_EXPOSITION_H_
