// The audit: one line of the log, with the message `audit`, for each event that a security review asks about. It is
// written whatever --log-level is. Of a call it says what the call says of its trace, if anything.
#ifndef ATTEND_SERVER_RPC_AUDIT_H_
#define ATTEND_SERVER_RPC_AUDIT_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "server/base/logging.h"
#include "server/rpc/inbound_call.h"
#include "server/rpc/trace_context.h"

namespace attend::server {

// Thread-safe.
class Audit {
 public:
  using Clock = LogRateLimit::Clock;

  // `log` must outlive the object.
  explicit Audit(Log& log) : log_(log), denials_(kMostDenials, std::chrono::seconds(10)) {}
  ~Audit() { RecordLeftOut(Clock::time_point::max()); }
  Audit(const Audit&) = delete;
  Audit& operator=(const Audit&) = delete;

  // A call was refused for want of a credential or a role. Callers cause these at will: at most a hundred in ten
  // seconds, whatever they say of themselves, with a line that counts the others: it comes with the next denial or by
  // RecordLeftOut.
  void Denied(const InboundCall& call, const std::string& reason) {
    const LogRateLimit::Verdict verdict = denials_.Ask(Clock::now());
    RecordCount(verdict.held_back);
    if (!verdict.pass) return;
    log_.Record("audit", TraceContextOf(call).With({{"event", std::string("denied")},
                                                    {"principal", call.principal()},
                                                    {"peer", call.peer()},
                                                    {"method", call.method()},
                                                    {"reason", reason}}));
  }

  // Counts the denials that were left out and not counted as yet, unless some may still be left out of the same ten
  // seconds. To be called now and then: there may be no further denial.
  void RecordLeftOut(Clock::time_point now = Clock::now()) { RecordCount(denials_.TakeHeldBack(now)); }

  // A call created, replaced or deleted a layer, which `event` says; `etag` is that of the new layer, or of the deleted
  // one.
  void Layer(const std::string& event, const InboundCall& call, const std::string& layer, const std::string& etag) {
    log_.Record("audit", TraceContextOf(call).With({{"event", event},
                                                    {"principal", call.principal()},
                                                    {"tenant", call.tenant()},
                                                    {"peer", call.peer()},
                                                    {"layer", layer},
                                                    {"etag", etag}}));
  }

  // Files were read again: what they are, and why they were refused; empty when they are in force.
  void Reloaded(const std::string& what, const std::string& refusal) {
    log_.Record("audit",
                {{"event", refusal.empty() ? what + " reloaded" : what + " not reloaded; the last stay in force"},
                 {"reason", refusal}});
  }
  // gRPC has files that the HTTP door could not take, and why it could not.
  void DoorIsBehind(const std::string& what, const std::string& reason) {
    log_.Record("audit", {{"event", what + " not reloaded at the HTTP door, which has older ones than gRPC"},
                          {"reason", reason}});
  }
  // The door has what gRPC has since then, though the files on the disk are wrong now.
  void DoorCaughtUp(const std::string& what) {
    log_.Record("audit", {{"event", what + " reloaded at the HTTP door, which has those of gRPC"}});
  }

 private:
  static constexpr int kMostDenials = 100;

  void RecordCount(std::int64_t left_out) {
    if (left_out > 0) log_.Record("audit", {{"event", std::string("denials left out")}, {"count", left_out}});
  }

  Log& log_;
  LogRateLimit denials_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_AUDIT_H_
