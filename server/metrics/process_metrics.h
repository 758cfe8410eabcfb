// What the system knows of this process, under Prometheus' own names: `process_cpu_seconds_total` and so on.
#ifndef ATTEND_SERVER_METRICS_PROCESS_METRICS_H_
#define ATTEND_SERVER_METRICS_PROCESS_METRICS_H_

#include "server/metrics/exposition.h"

namespace attend::server {

// Leaves out what cannot be read. Thread-safe.
void WriteProcessMetrics(Exposition& page);

}  // namespace attend::server

#endif  // ATTEND_SERVER_METRICS_PROCESS_METRICS_H_
