#include "core/runtime/cpu.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <memory>
#include <sstream>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace attend {
namespace {

std::optional<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();  // An iterator over the file would throw where reading fails.
  return text.str();
}

std::optional<double> Ratio(absl::string_view quota, absl::string_view period) {
  double quota_us = 0, period_us = 0;
  if (!absl::SimpleAtod(quota, &quota_us) || !absl::SimpleAtod(period, &period_us)) return std::nullopt;
  if (!(quota_us > 0) || !(period_us > 0)) return std::nullopt;  // Version 1 says -1 for "unlimited".
  return quota_us / period_us;
}

// Version 2: `cpu.max` is "$QUOTA $PERIOD", where the quota may be "max".
std::optional<double> ReadV2(const std::string& directory) {
  const std::optional<std::string> text = ReadFile(directory + "/cpu.max");
  if (!text) return std::nullopt;
  const std::vector<std::string> words = absl::StrSplit(*text, absl::ByAnyChar(" \n"), absl::SkipEmpty());
  return words.size() == 2 ? Ratio(words[0], words[1]) : std::nullopt;
}

std::optional<double> ReadV1(const std::string& directory) {
  const std::optional<std::string> quota = ReadFile(directory + "/cpu.cfs_quota_us");
  const std::optional<std::string> period = ReadFile(directory + "/cpu.cfs_period_us");
  return quota && period ? Ratio(*quota, *period) : std::nullopt;
}

using Reader = std::optional<double> (*)(const std::string& directory);

// The tightest quota of `path` and its ancestors below `root`. Directories that are missing, because the container sees
// only its own part of the tree, limit nothing.
std::optional<double> TightestAlongPath(const std::string& root, absl::string_view path, Reader read) {
  std::optional<double> tightest;
  std::string directory = root;
  const auto lower = [&] {
    const std::optional<double> quota = read(directory);
    if (quota) tightest = std::min(*quota, tightest.value_or(*quota));
  };
  lower();
  for (const absl::string_view component : absl::StrSplit(path, '/', absl::SkipEmpty())) {
    if (component == "..") break;  // The process's group lies outside of what is mounted here.
    absl::StrAppend(&directory, "/", component);
    lower();
  }
  return tightest;
}

int AffinityCores() {
  for (int cpus = CPU_SETSIZE; cpus <= CPU_SETSIZE * 64; cpus *= 2) {  // The kernel refuses sets smaller than its own.
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(static_cast<std::size_t>(cpus)),
                                                               [](cpu_set_t* p) { CPU_FREE(p); });
    const std::size_t size = CPU_ALLOC_SIZE(static_cast<std::size_t>(cpus));
    if (set != nullptr && sched_getaffinity(0, size, set.get()) == 0) return CPU_COUNT_S(size, set.get());
  }
  return static_cast<int>(std::thread::hardware_concurrency());
}

// The kernel's struct sched_attr in its first version (sched_setattr(2)); Debian 12's C library has none.
struct SchedulingAttributes {
  std::uint32_t size;
  std::uint32_t policy;
  std::uint64_t flags;
  std::int32_t nice;
  std::uint32_t priority;
  std::uint64_t runtime;  // For an ordinary thread: its slice in nanoseconds.
  std::uint64_t deadline;
  std::uint64_t period;
};
static_assert(sizeof(SchedulingAttributes) == 48);

}  // namespace

std::optional<double> CgroupCpuQuota(const std::string& cgroup_root, std::string_view self_cgroup) {
  std::optional<double> tightest;
  const auto lower = [&tightest](std::optional<double> quota) {
    if (quota) tightest = std::min(*quota, tightest.value_or(*quota));
  };
  const absl::string_view text(self_cgroup.data(), self_cgroup.size());
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    // "hierarchy:controllers:path"; version 2 has hierarchy 0 and no controllers.
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    if (fields[1].empty()) {
      lower(TightestAlongPath(cgroup_root, fields[2], ReadV2));
      continue;
    }
    for (const absl::string_view controller : absl::StrSplit(fields[1], ',')) {
      if (controller != "cpu") continue;
      // Mounted under the controllers' joint name, or under a link with this one's alone.
      lower(TightestAlongPath(absl::StrCat(cgroup_root, "/", fields[1]), fields[2], ReadV1));
      lower(TightestAlongPath(absl::StrCat(cgroup_root, "/cpu"), fields[2], ReadV1));
    }
  }
  return tightest;
}

int AvailableCores() {
  int cores = AffinityCores();
  const std::optional<std::string> self_cgroup = ReadFile("/proc/self/cgroup");
  const std::optional<double> quota = CgroupCpuQuota("/sys/fs/cgroup", self_cgroup.value_or(""));
  if (quota && *quota < cores) cores = static_cast<int>(std::ceil(*quota));
  return std::max(cores, 1);
}

std::chrono::nanoseconds ThreadCpuTime() {
  timespec used{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
}

bool RequestShortSlice(std::chrono::nanoseconds slice) {
  constexpr int kThisThread = 0;
  constexpr unsigned kNoFlags = 0;
  SchedulingAttributes attributes{};
  if (syscall(SYS_sched_getattr, kThisThread, &attributes, sizeof(attributes), kNoFlags) != 0) return false;
  attributes.runtime = static_cast<std::uint64_t>(slice.count());
  return syscall(SYS_sched_setattr, kThisThread, &attributes, kNoFlags) == 0;
}

}  // namespace attend
