// Where a call's time went, and the trailer that tells the caller.
//
// The trailer is W3C Server-Timing (https://www.w3.org/TR/server-timing/), durations in milliseconds:
//   server-timing: receive;dur=0.041, queue;dur=0.000, compute;dur=0.112, send;dur=0.006
//
// Thread-compatible.
#ifndef ATTEND_SERVER_RPC_SERVER_TIMING_H_
#define ATTEND_SERVER_RPC_SERVER_TIMING_H_

#include <chrono>
#include <string>

namespace attend::server {

// Durations are measured with the monotonic clock.
using Clock = std::chrono::steady_clock;

// The stations of a call. A station that was never reached took zero time.
struct CallTiming {
  Clock::duration receive{};  // From the call's metadata to a decoded request: transfer of the payload and decoding.
  Clock::duration queue{};    // Waiting for a compute thread.
  Clock::duration compute{};  // Computing.
  Clock::duration send{};     // Serializing the response, up to handing it to the transport.
};

// Adds what one request of a stream took to what all of them took.
inline void AddTiming(const CallTiming& of_one, CallTiming& of_all) {
  of_all.receive += of_one.receive;
  of_all.queue += of_one.queue;
  of_all.compute += of_one.compute;
  of_all.send += of_one.send;
}

// The trailer's value, at most 120 characters.
std::string FormatServerTiming(const CallTiming& timing);

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_SERVER_TIMING_H_
