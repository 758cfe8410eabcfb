#include "server/metrics/exposition.h"

#include <prometheus/metric_type.h>
#include <prometheus/text_serializer.h>

#include <cstddef>
#include <utility>

namespace attend::server {

void Exposition::Start(const std::string& name, const std::string& help, prometheus::MetricType type) {
  families_.push_back({.name = name, .help = help, .type = type, .metric = {}});
}

void Exposition::Counter(const std::string& name, const std::string& help) {
  Start(name, help, prometheus::MetricType::Counter);
}

void Exposition::Gauge(const std::string& name, const std::string& help) {
  Start(name, help, prometheus::MetricType::Gauge);
}

void Exposition::Histogram(const std::string& name, const std::string& help) {
  Start(name, help, prometheus::MetricType::Histogram);
}

void Exposition::Add(MetricLabels labels, double value) {
  prometheus::ClientMetric metric;
  metric.label = std::move(labels);
  prometheus::MetricFamily& family = families_.back();
  if (family.type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  family.metric.push_back(std::move(metric));
}

void Exposition::Gauge(const std::string& name, const std::string& help, double value) {
  Gauge(name, help);
  Add({}, value);
}

void Exposition::Add(MetricLabels labels, absl::Span<const double> upper_bounds, absl::Span<const std::uint64_t> counts,
                     double sum) {
  prometheus::ClientMetric metric;
  metric.label = std::move(labels);
  prometheus::ClientMetric::Histogram& histogram = metric.histogram;
  for (std::size_t i = 0; i < upper_bounds.size(); ++i) {
    histogram.sample_count += counts[i];
    histogram.bucket.push_back({.cumulative_count = histogram.sample_count, .upper_bound = upper_bounds[i]});
  }
  histogram.sample_count += counts.back();  // The serialiser adds the bucket of infinity.
  histogram.sample_sum = sum;
  families_.back().metric.push_back(std::move(metric));
}

std::string Exposition::Text() const { return prometheus::TextSerializer().Serialize(families_); }

}  // namespace attend::server
