// A thread that needs little of a core, but at once.
#ifndef ATTEND_CORE_RUNTIME_SHORT_TURNS_H_
#define ATTEND_CORE_RUNTIME_SHORT_TURNS_H_

#include <chrono>

namespace attend {

// Asks the scheduler to give the calling thread turns of `length` instead of its usual milliseconds. Its share of the
// core stays the same, but when it wakes up, it takes the core from threads with longer turns at once, where it would
// otherwise wait for the end of theirs (Linux 6.12 and later: the slice of EEVDF; needs no privilege). Threads that it
// starts inherit that. False where the system refuses; an older one may say true and change nothing. REQUIRES: 0.1 ms
// <= length <= 100 ms.
bool AskForShortTurns(std::chrono::nanoseconds length);

}  // namespace attend

#endif  // ATTEND_CORE_RUNTIME_SHORT_TURNS_H_
