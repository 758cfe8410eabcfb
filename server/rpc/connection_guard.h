// Ends connections that take memory which nothing counts, or a polling thread, by bytes that never become calls.
//
// gRPC 1.51 throws headers beyond --max-metadata-bytes away but not the memory that they were parsed into, and reads
// on: some kilobytes on the wire hold megabytes, and no call ever reaches the server's methods. A look at the process'
// memory and at the polling threads now and then says whether that may be happening. Only then the guard opens an
// inquiry: for some moments calls and messages are counted by their connections (HandedCalls), and a connection of
// which gRPC has read clearly more than calls can explain is shut down.
//
//   unexplained = bytes that gRPC has read from it
//                 - 1.5 x bytes of messages that came whole, and 256 bytes for each: frames and records around them
//                 - --max-metadata-bytes for each call
//                 - --max-request-bytes for each call that may be receiving a message, or may have been two seconds
//                   before the inquiry
//                 - an eighth of the bytes sent to it: window updates and acknowledgements
//
// Beyond 64 KiB it ends. So neither a message that takes long, nor a stream of messages, nor a large answer ends a
// connection. What came may wait for its polling thread; so what was read is compared once everything that gRPC had
// read by then has been handled (EventFence), and again 50 ms later, because threads that no fence sees may hold it
// back. The second comparison is left out when half of the memory is taken that transport and process may have
// (MemoryPlan). While all polling threads are kept, or more calls arrive than are handled, honest calls wait unseen:
// nobody ends before half of that memory is taken or a thread has been kept for two seconds, nor before one connection
// has 1 MiB, or 128 KiB where that is a sixteenth of what was read of all; then those end that have half of what the
// worst has.
//
// Calls that wait for a message explain up to --max-request-bytes each, which is more than an attack needs. So when
// the uncounted memory is more than transport and process may have together (MemoryPlan), also after the allocator has
// given back what it kept, they explain nothing any more. Headers that stop in the middle, of thousands of connections,
// are not to be told from what an honest idle connection once sent: when it stays that much, every connection of which
// calls explain nothing and that ever sent 4 KiB may end, also one that is idle. The server would be killed otherwise,
// and with it all connections.
//
// A connection also ends with its eighth call that has more metadata than allowed: a peer that has acknowledged the
// server's SETTINGS cannot make such calls, and one that never does makes gRPC hold 0.5 MB and more for each 8 KB.
// Proxies whose addresses are trusted are spared that.
//
// A Unix socket counts no bytes and is never ended; file permissions say who may open it.
//
// Thread-safe.
#ifndef ATTEND_SERVER_RPC_CONNECTION_GUARD_H_
#define ATTEND_SERVER_RPC_CONNECTION_GUARD_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "core/base/mutex.h"
#include "server/rpc/event_fence.h"
#include "server/rpc/handed_calls.h"
#include "server/rpc/open_connections.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

// Why a connection was ended.
enum class EndReason : std::uint8_t { kMemory, kThread, kMetadata };
inline constexpr std::array<EndReason, 3> kEndReasons = {EndReason::kMemory, EndReason::kThread, EndReason::kMetadata};
// `uncounted_memory`, `kept_thread`, `too_much_metadata`; for logs and metrics.
std::string_view EndReasonName(EndReason reason);

// Of this process, in bytes.
struct ProcessUse {
  std::int64_t anonymous = 0;  // Memory that is resident and no file's.
  std::int64_t counted = 0;    // What budgets and layers know of.
};

struct EndedConnection {
  EndReason reason = EndReason::kMemory;
  std::string peer;
  std::int64_t read_bytes = 0;    // Since the inquiry was opened; without one, since the connection's beginning.
  std::int64_t handed_bytes = 0;  // Of messages, since then.
  std::int64_t calls = 0;
};

class ConnectionGuard {
 public:
  struct Limits {
    // Growth of uncounted memory, since the last inquiry ended, that opens the next.
    std::int64_t growth_bytes = std::int64_t{32} << 20;
    // What gRPC's transport and the process may have together; see MemoryPlan.
    std::int64_t most_uncounted_bytes = (std::int64_t{1} << 30) + (std::int64_t{128} << 20);
    std::int64_t max_request_bytes = std::int64_t{256} << 20;
    std::int64_t max_metadata_bytes = 16 << 10;
  };

  // What it looks at and acts on; on its thread, and none may be empty. Tests have fakes.
  struct Surroundings {
    std::function<ProcessUse()> memory;
    std::function<std::vector<ConnectionTraffic>()> traffic;  // Some may be missing, while descriptors are short.
    std::function<std::int64_t()> next_number;                // Of the next connection.
    std::function<bool(std::int64_t connection)> shut_down;
    std::function<void()> give_back_memory;
    // What the allocator holds and nobody uses, whether it was given back to the system or not.
    std::function<std::int64_t()> free_bytes;
    // For each polling thread how often it has asked gRPC for an event: at least once a second, unless it is kept; 0:
    // it does not ask.
    std::function<std::vector<std::uint64_t>()> questions;
    std::function<bool()> is_any_kept;      // Whether one is at the moment.
    std::function<void()> look_at_threads;  // Has those who stand in look soon whether they must.
    std::function<void()> add_open_calls;   // Tells HandedCalls of the calls that are there.
    std::function<void()> begin_fence;      // See EventFence.
    std::function<FenceState()> fence_state;
    std::function<void(const EndedConnection&)> on_ended;
  };

  // `calls` must outlive the object.
  ConnectionGuard(const Limits& limits, Surroundings surroundings, HandedCalls& calls);
  // Stops.
  ~ConnectionGuard() { Stop(); }
  ConnectionGuard(const ConnectionGuard&) = delete;
  ConnectionGuard& operator=(const ConnectionGuard&) = delete;

  // Starts to look, on a thread of its own. What memory there is now is the program's. Called at most once.
  void Start();
  // Not concurrently with itself.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);
  // Something is being received: it looks often for a while. Costs next to nothing when it does so already.
  void OnTraffic() ABSL_LOCKS_EXCLUDED(mu_);
  // A call of this peer, as gRPC names it, had more metadata than gRPC lets a peer send that keeps to the server's
  // SETTINGS. Its connection ends with the eighth. Any thread.
  void OnTooMuchMetadata(const std::string& peer) ABSL_LOCKS_EXCLUDED(mu_);

  std::int64_t ended(EndReason reason) const {
    return ended_[static_cast<std::size_t>(reason)].load(std::memory_order_relaxed);
  }

  // One look; how long it is until the next. REQUIRES: not started; for tests.
  Clock::duration Look(Clock::time_point now);

 private:
  struct Suspicion {
    std::int64_t read = 0;  // What gRPC had read when it began.
    Clock::time_point since;
  };

  // An inquiry, from its opening until memory or thread are free or no connection was found to end.
  struct Inquiry {
    EndReason reason;
    Clock::time_point until;
    std::int64_t first_number;                                    // Of those that came later: they had nothing.
    absl::flat_hash_map<std::int64_t, ConnectionTraffic> before;  // By number, of the others.
    std::vector<ConnectionTraffic> read;                          // To be judged when the fence has passed.
    // Those, by number, of whom bytes were not explained at the last comparison.
    absl::flat_hash_map<std::int64_t, Suspicion> suspected;
    absl::flat_hash_set<std::int64_t> ended;  // By number; gRPC closes them a little later.
    std::optional<Clock::time_point> last_ended;
    std::optional<Clock::time_point> not_given_back;  // When the first ended whose memory was not asked back yet.
    std::optional<Clock::time_point> gave_back;       // When memory last was.
    std::optional<Clock::time_point> beyond_plan;     // Since when.
  };

  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  // Ends those whose calls had too much metadata.
  void EndOversized() ABSL_LOCKS_EXCLUDED(mu_);
  bool IsThreadKept(Clock::time_point now);
  // How much more is uncounted than at the last look.
  std::int64_t Measure(Clock::time_point now);
  void Open(EndReason reason, Clock::time_point now);
  void BeginFence();
  // Waits for the next look. False: there is none.
  bool Wait(Clock::time_point begin, Clock::duration wanted) ABSL_LOCKS_EXCLUDED(mu_);
  // Compares what was read before the fence with what was handed, and ends who has to end.
  void Judge(FenceState fence, bool is_kept, Clock::time_point now);
  // Memory that nothing counts, nor has counted a moment ago: what the plan's parts for transport and process are for.
  std::int64_t Uncounted() const;
  // `some`: whether others were ended at this look.
  void EndBeyondPlan(bool some, Clock::time_point now);
  // Whether somebody was ended.
  bool EndSome(Clock::time_point now, absl::FunctionRef<bool(const ConnectionTraffic&, const Handed&)> must_end);
  std::int64_t ReadSince(const ConnectionTraffic& traffic) const;
  // `receiving`: whether calls that may be receiving explain anything.
  std::int64_t Unexplained(const ConnectionTraffic& traffic, const Handed& handed, bool receiving) const;
  void GiveBack(Clock::time_point now);
  // Gives back what is free, if that is much; whether or not somebody was ended.
  void GiveBackWhatIsFree(Clock::time_point now);
  // What has to be unexplained while the polling threads are kept.
  std::int64_t LeastWhenLate() const;
  bool IsAnswered(Clock::time_point now, bool is_kept);
  void Close(Clock::time_point now);

  const Limits limits_;
  const Surroundings around_;
  HandedCalls& calls_;
  std::array<std::atomic<std::int64_t>, kEndReasons.size()> ended_{};

  // Of the thread that looks.
  std::int64_t first_ = -1;     // Uncounted memory at the start.
  std::int64_t uncounted_ = 0;  // Beyond that, now,
  std::int64_t tolerated_ = 0;  // and as far as no inquiry is open.
  // The most that was counted in this period and in the last: what is given back is counted no more before it is free.
  std::int64_t counted_now_ = 0;
  std::int64_t counted_before_ = 0;
  Clock::time_point period_end_;
  std::int64_t beyond_recent_ = 0;    // What is there beyond the start and the most that was counted lately.
  std::int64_t given_back_ = 0;       // How much of the allocator's free memory has been given back, at most.
  Clock::time_point next_give_back_;  // When memory may be given back again without an inquiry.
  std::int64_t least_since_given_back_ =
      0;  // The least of `uncounted_` since memory was given back without an inquiry.
  std::optional<Inquiry> inquiry_;
  std::vector<std::uint64_t> questions_;  // As last seen, and when each was another.
  std::vector<Clock::time_point> asked_;
  Clock::time_point no_thread_before_;  // When a kept thread may open an inquiry again.
  Clock::duration pause_;

  std::atomic<bool> traffic_{false};  // Since the last look.
  std::atomic<bool> sleeps_long_{false};
  Mutex mu_;
  CondVar changed_;
  bool stops_ ABSL_GUARDED_BY(mu_) = false;
  // Calls with too much metadata, by CanonicalPeer, and the peers that have sent too many of them.
  absl::flat_hash_map<std::string, int> oversized_calls_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_set<std::string> oversized_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_CONNECTION_GUARD_H_
