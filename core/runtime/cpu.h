// What the operating system grants this process's threads: cores, time slices, and the time that one has used.
//
// All functions may be called concurrently.
#ifndef ATTEND_CORE_RUNTIME_CPU_H_
#define ATTEND_CORE_RUNTIME_CPU_H_

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace attend {

// The cores that this process may use: the CPU affinity mask, lowered to the container's quota (cgroup v2 `cpu.max`, v1
// `cpu.cfs_quota_us` / `cpu.cfs_period_us`, the tightest along the path to the root), rounded up; at least 1.
int AvailableCores();

// The same quota read below other roots, for tests: `cgroup_root` stands for /sys/fs/cgroup and `self_cgroup` is the
// text of /proc/self/cgroup. Empty when nothing limits.
std::optional<double> CgroupCpuQuota(const std::string& cgroup_root, std::string_view self_cgroup);

// The processor time that the calling thread has used. Waiting, for a core too, does not count.
std::chrono::nanoseconds ThreadCpuTime();

// Requests a shorter scheduler slice for the calling thread (EEVDF, Linux 6.12 and later; needs no privilege). The
// thread's share of the core stays the same, but when it wakes up it preempts threads with longer slices at once.
// Threads that it starts inherit the slice. Returns false where the kernel refuses; an older kernel may return true and
// change nothing. REQUIRES: 0.1 ms <= slice <= 100 ms.
bool RequestShortSlice(std::chrono::nanoseconds slice);

}  // namespace attend

#endif  // ATTEND_CORE_RUNTIME_CPU_H_
