// Counts of calls, under the names of the gRPC ecosystem (github.com/grpc-ecosystem/go-grpc-middleware):
// `grpc_server_...` by type, service, method and, at the end, code.
//
// A method that the server does not have is counted as `unknown`, whatever its name, so that no caller can make a
// series. Series of every method and code exist from the start.
//
// Thread-safe and lock-free.
#ifndef ATTEND_SERVER_METRICS_CALL_METRICS_H_
#define ATTEND_SERVER_METRICS_CALL_METRICS_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/metrics/exposition.h"
#include "server/metrics/sharded_counters.h"
#include "server/rpc/inbound_call.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

// gRPC's codes, 0 to 16, as Go's library writes them, because the names of the metrics are Go's too.
inline constexpr const char* kGrpcCodeNames[] = {
    "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
    "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
    "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
    "DataLoss", "Unauthenticated"};
inline constexpr std::size_t kGrpcCodes = std::size(kGrpcCodeNames);

class CallMetrics {
 public:
  // `paths`: MethodTable::Paths of the server's table, of methods of the generated descriptor pool.
  explicit CallMetrics(const std::vector<std::string>& paths);

  // What CallEngine::Options says.
  void OnStarted(const InboundCall& call);
  void OnFinished(const InboundCall& call, const absl::Status& status);
  void OnStreamMessage(const InboundCall& call, bool received, std::size_t bytes);

  void Write(Exposition& page) const;

 private:
  struct Method {
    std::string type, service, name;
    MetricLabels Labels() const;
  };

  // Where the counters of a method begin; -1: the one of all unknown methods.
  std::size_t At(int method_id) const;
  void WriteCounter(std::size_t offset, const std::string& name, const std::string& help, Exposition& page) const;

  std::vector<Method> methods_;  // By MethodEntry::id; the last is the unknown one.
  ShardedCounters counters_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_METRICS_CALL_METRICS_H_
