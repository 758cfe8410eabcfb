// A process that has no descriptor left for another file or connection (EMFILE).
#ifndef ATTEND_TESTS_SUPPORT_WITHOUT_DESCRIPTORS_H_
#define ATTEND_TESTS_SUPPORT_WITHOUT_DESCRIPTORS_H_

#include <sys/resource.h>

#include <cstdlib>

namespace attend::testing {

// From its construction to its end this process opens nothing; what is open stays so. Expectations belong behind its
// end: UndefinedBehaviorSanitizer opens a pipe to look at memory, and takes what it cannot look at for no object.
class WithoutDescriptors {
 public:
  WithoutDescriptors() {
    if (getrlimit(RLIMIT_NOFILE, &usual_) != 0) std::abort();
    const rlimit none{.rlim_cur = 0, .rlim_max = usual_.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &none) != 0) std::abort();
  }
  WithoutDescriptors(const WithoutDescriptors&) = delete;
  WithoutDescriptors& operator=(const WithoutDescriptors&) = delete;
  ~WithoutDescriptors() { setrlimit(RLIMIT_NOFILE, &usual_); }

 private:
  rlimit usual_{};
};

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_WITHOUT_DESCRIPTORS_H_
