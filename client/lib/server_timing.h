// The receipt of a call: where the server spent its time.
//
// Every response of attend, also a refusal (though not what gRPC itself refuses), carries trailing metadata
// `server-timing` in the form of the W3C Server Timing specification (https://www.w3.org/TR/server-timing/):
// `receive;dur=0.12, queue;dur=0.01, compute;dur=3.4`.
//
// Pure; may be called concurrently.
#ifndef ATTEND_CLIENT_LIB_SERVER_TIMING_H_
#define ATTEND_CLIENT_LIB_SERVER_TIMING_H_

#include <string>
#include <string_view>
#include <vector>

namespace attend::client {

// One station of a request on the server.
struct StageTime {
  std::string name;         // `receive`, `queue`, `compute`, `send`, ...
  double milliseconds = 0;  // At least 0.
};

// The metrics of `header` that have a duration, in their order. Forgiving, as the specification asks: a metric without
// a name or with a duration that is not a number is left out; parameters other than `dur` are skipped.
std::vector<StageTime> ParseServerTiming(std::string_view header);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_LIB_SERVER_TIMING_H_
