// Which order the fake gRPC promises, and only that.
//
// ThreadSanitizer takes each mutex that two threads lock as an order between all that they did before and after. gRPC
// promises less: what came before an operation began, and before it ended, comes before its event is taken. So what the
// fake's own mutexes order is hidden, and the order that gRPC promises is said by name. Without ThreadSanitizer all of
// this is nothing.
#ifndef ATTEND_TESTS_FAKE_GRPC_EDGES_H_
#define ATTEND_TESTS_FAKE_GRPC_EDGES_H_

#include <mutex>

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
void AnnotateIgnoreSyncBegin(const char* file, int line);
void AnnotateIgnoreSyncEnd(const char* file, int line);
}
#endif

namespace attend::fake_grpc {

// All before Before(x), by any thread, comes before what follows After(x).
inline void Before([[maybe_unused]] void* what) {
#ifdef __SANITIZE_THREAD__
  __tsan_release(what);
#endif
}
inline void After([[maybe_unused]] void* what) {
#ifdef __SANITIZE_THREAD__
  __tsan_acquire(what);
#endif
}

// While it lives, nothing that the thread does is seen.
class Hidden {
 public:
#ifdef __SANITIZE_THREAD__
  Hidden() {
    AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Hidden() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
  }
#else
  Hidden() = default;
#endif
  Hidden(const Hidden&) = delete;
  Hidden& operator=(const Hidden&) = delete;
};

// A lock that orders nothing. Under it things are moved, never copied or destroyed: what counts their owners would be
// hidden too.
class HiddenLock : private Hidden, public std::unique_lock<std::mutex> {
 public:
  explicit HiddenLock(std::mutex& mutex) : std::unique_lock<std::mutex>(mutex) {}
};

}  // namespace attend::fake_grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_EDGES_H_
