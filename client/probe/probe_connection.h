// A connection of a probe's own, no step of which blocks for longer than a bounded time.
#ifndef ATTEND_CLIENT_PROBE_PROBE_CONNECTION_H_
#define ATTEND_CLIENT_PROBE_PROBE_CONNECTION_H_

#include "absl/time/time.h"
#include "client/probe/endpoint_probe.h"

namespace attend::client {

// How long one step may take: connecting, reading, writing.
constexpr absl::Duration kProbeStep = absl::Seconds(1);

class ProbeConnection {
 public:
  // Connects, within kProbeStep and about until `deadline`. What its socket then reads and writes has the same bound.
  ProbeConnection(const SocketAddress& address, absl::Time deadline);
  ~ProbeConnection();
  ProbeConnection(const ProbeConnection&) = delete;
  ProbeConnection& operator=(const ProbeConnection&) = delete;

  int fd() const { return fd_; }
  bool ok() const { return error_ == 0; }

  // Why there is none. REQUIRES: !ok().
  ProbeResult Failure() const;

 private:
  const int fd_;
  int error_;  // 0, or errno.
};

}  // namespace attend::client

#endif  // ATTEND_CLIENT_PROBE_PROBE_CONNECTION_H_
