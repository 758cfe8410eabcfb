// Says when everything that gRPC had read at some moment has been handled.
//
// First each thread that reads must have published what it had read (ReadingThread); only then each queue gets an event
// of its own, behind those, and that must have been handled. gRPC keeps calls back that come faster than the program
// asks for them; so where about as many have arrived meanwhile as were asked for, another event follows. Last, a thread
// that has taken an event must have handled it. Threads on which gRPC reads or parses beside these are not seen.
//
// Not thread-safe.
#ifndef ATTEND_SERVER_RPC_EVENT_FENCE_H_
#define ATTEND_SERVER_RPC_EVENT_FENCE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "server/rpc/poller.h"
#include "server/rpc/reading_thread.h"

namespace attend::server {

// `kLate`: what was read has not all been handled, because every thread that could is kept by a connection that goes on
// sending, or because so many calls arrive.
enum class FenceState : std::uint8_t { kWaits, kPassed, kLate };

class EventFence {
 public:
  // `others`: threads on which gRPC reads beside the pollers'. `asked`: how many calls the program asks for in advance
  // on each queue. What is pointed to must outlive the object.
  EventFence(std::vector<Poller*> pollers, std::vector<const ReadingThread*> others, int asked);

  // The moment is now; what was before is forgotten.
  void Begin();
  // REQUIRES: after Begin.
  FenceState Look();

 private:
  void Mark();
  FenceState StateOf(std::size_t poller);
  // Whether every event that was taken when the marks were seen has been handled.
  bool HaveHandled();
  bool AreAllKept(std::size_t poller);
  // Whether gRPC may have kept back calls of the queue when the event was put there.
  bool MayKeepBack(const Poller& poller) const;

  const std::vector<Poller*> pollers_;
  std::vector<const ReadingThread*> threads_;   // All, the pollers' first, in their order.
  std::vector<ReadingThread::Moment> moments_;  // Of each, when the fence began,
  std::vector<ReadingThread::Moment> kept_;     // and when it was first seen in the question where it is,
  std::vector<ReadingThread::Moment> taken_;    // and when all marks had been handled.
  std::vector<std::uint64_t> marks_;            // Of each queue, once all was published,
  int times_marked_ = 0;                        // and how often that was.
  const int asked_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_EVENT_FENCE_H_
