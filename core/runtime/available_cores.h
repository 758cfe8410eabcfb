// How many cores this process may really use.
#ifndef ATTEND_CORE_RUNTIME_AVAILABLE_CORES_H_
#define ATTEND_CORE_RUNTIME_AVAILABLE_CORES_H_

#include <optional>
#include <string>
#include <string_view>

namespace attend {

// The cores this process may use: the CPU affinity mask, lowered to the container's quota (cgroup v2 `cpu.max`, v1
// `cpu.cfs_quota_us` / `cpu.cfs_period_us`, the tightest along the path to the root), rounded up; at least 1.
int AvailableCores();

// The same quota read below other roots, for tests: `cgroup_root` stands for /sys/fs/cgroup and `self_cgroup` is the
// text of /proc/self/cgroup. Empty when nothing limits.
std::optional<double> CgroupCpuQuota(const std::string& cgroup_root, std::string_view self_cgroup);

}  // namespace attend

#endif  // ATTEND_CORE_RUNTIME_AVAILABLE_CORES_H_
