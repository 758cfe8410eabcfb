// How much memory this process may really use, and what of it goes to requests.
#ifndef ATTEND_SERVER_CONFIG_CONTAINER_MEMORY_H_
#define ATTEND_SERVER_CONFIG_CONTAINER_MEMORY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace attend::server {

// The default of --max-memory-in-flight-bytes: half the container's memory limit, because the other half is for
// layers, the transport, scratch that is being taken and what an allocator keeps; 4 GiB where nothing limits.
std::int64_t DefaultMemoryInFlightBytes();

// The default of --max-layers-bytes: a quarter of the container's memory limit, 4 GiB where nothing limits.
std::int64_t DefaultLayersBytes();

// The container's memory limit in bytes (cgroup v2 `memory.max`, v1 `memory.limit_in_bytes`; the tightest along the
// path to the root), read below any root, for tests: `cgroup_root` stands for /sys/fs/cgroup and `self_cgroup` is the
// text of /proc/self/cgroup. Empty when nothing limits.
std::optional<std::int64_t> CgroupMemoryLimit(const std::string& cgroup_root, std::string_view self_cgroup);

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONFIG_CONTAINER_MEMORY_H_
