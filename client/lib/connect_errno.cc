#include "client/lib/connect_errno.h"

#include "absl/base/internal/sysinfo.h"

namespace attend::client::internal {

// Abseil keeps the functions for itself, but offers no other way that does not need two threads and a mutex.
void ReadProcessorFacts() {
  absl::base_internal::NumCPUs();
  absl::base_internal::NominalCPUFrequency();
}

}  // namespace attend::client::internal
