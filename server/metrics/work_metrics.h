// Counts of what happens inside calls: refusals, requests of streams, computing, and how long polling threads let
// events wait. The names begin with `attend_`.
//
// Thread-safe and lock-free.
#ifndef ATTEND_SERVER_METRICS_WORK_METRICS_H_
#define ATTEND_SERVER_METRICS_WORK_METRICS_H_

#include <cstddef>
#include <initializer_list>
#include <string>

#include "absl/status/status.h"
#include "core/kernels/instruction_set.h"
#include "server/metrics/exposition.h"
#include "server/metrics/sharded_counters.h"
#include "server/rpc/request_run.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

class WorkMetrics {
 public:
  explicit WorkMetrics(InstructionSet instruction_set);

  // Counts the reason of an error if the server refused because of its own state or limits.
  void OnError(const absl::Status& status);
  // What RequestServices and CallEngine::Options say.
  void OnStreamAnswer(const absl::Status& status);
  void OnComputed(const ComputedRequest& request);
  void OnLoopDelay(Clock::duration delay);

  void Write(Exposition& page) const;

 private:
  // A counter of each kind of work, and what one of it stands for.
  struct Term {
    std::size_t offset;
    double unit;
  };
  void WriteWork(std::initializer_list<Term> sum, const std::string& name, const std::string& help,
                 Exposition& page) const;

  const std::string instruction_set_;
  ShardedCounters counters_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_METRICS_WORK_METRICS_H_
