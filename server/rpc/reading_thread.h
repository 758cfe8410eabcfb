// A thread on which gRPC reads connections, and how far it has come.
//
// gRPC 1.51 reads a connection inside a call of this program into gRPC, for as long as it finds bytes there, and what
// it has read reaches the program only later: when the thread has parsed it, and some thread has taken the event.
// Nobody is told of either, so whoever wants to compare bytes with calls asks here. Where two threads want the same
// connection, what one has read may wait for the other: a compute thread that sends an answer, or a thread of gRPC's
// own. Nothing here knows of those.
//
// Thread-safe, except for what is said below.
#ifndef ATTEND_SERVER_RPC_READING_THREAD_H_
#define ATTEND_SERVER_RPC_READING_THREAD_H_

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <functional>
#include <thread>

namespace attend::server {

class ReadingThread {
 public:
  // Where the thread was at some time.
  struct Moment {
    std::uint64_t state = 0;
    std::chrono::nanoseconds used{};
    bool sleeps = false;
  };

  ReadingThread() = default;
  ReadingThread(const ReadingThread&) = delete;
  ReadingThread& operator=(const ReadingThread&) = delete;

  // Starts a thread that calls `work`. Called at most once.
  void Start(std::function<void()> work);
  // Waits for the thread's end, if there is a thread. Not concurrently with itself.
  void Join();

  // Of the thread itself, around each call into gRPC that may read:

  void BeginQuestion() { state_.store(((state_.load(std::memory_order_relaxed) | kPhase) + 1) | kAsks, kRelaxed); }
  // It has an event, and the program has not handled that yet.
  void BeginHandling() { SetPhase(kHandles); }
  void End() { SetPhase(kRests); }

  // Of any thread:

  // How often it has called into gRPC.
  std::uint64_t questions() const { return state_.load(kRelaxed) >> kPhaseBits; }
  // Whether it is inside its call number `question` into gRPC.
  bool IsInside(std::uint64_t question) const { return state_.load(kRelaxed) == (question << kPhaseBits | kAsks); }

  // Processor time that it has used; 0 where it does not run.
  std::chrono::nanoseconds UsedTime() const;
  Moment Now() const;
  // Whether it has been at work since then, with the same question, for longer than gRPC takes to publish what it reads
  // at a time: it is kept by what a connection goes on to send.
  bool IsKeptSince(const Moment& then) const;
  // Whether an event that it had taken then has been handled.
  bool HasHandled(const Moment& then) const {
    return (then.state & kPhase) != kHandles || state_.load(std::memory_order_relaxed) != then.state;
  }
  // Whether all that it had read then is an event that somebody can take.
  bool HasPublished(const Moment& then) const;

 private:
  static constexpr auto kRelaxed = std::memory_order_relaxed;
  static constexpr int kPhaseBits = 2;
  static constexpr std::uint64_t kPhase = (1 << kPhaseBits) - 1;
  static constexpr std::uint64_t kRests = 0, kAsks = 1, kHandles = 2;

  void SetPhase(std::uint64_t phase) { state_.store((state_.load(kRelaxed) & ~kPhase) | phase, kRelaxed); }
  // Whether it waits for something, and neither runs nor wants to.
  bool Sleeps() const;

  std::atomic<std::uint64_t> state_{0};  // The number of questions and the phase. Written by the thread alone.
  std::atomic<pid_t> id_{0};             // Its own, and its clock, from its beginning.
  std::atomic<clockid_t> clock_{0};
  std::thread thread_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_READING_THREAD_H_
