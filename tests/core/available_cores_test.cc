// Guards how a container's CPU quota is found, on trees of files that look like /sys/fs/cgroup.
#include "core/runtime/cpu.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace attend {
namespace {

namespace fs = std::filesystem;

struct Case {
  std::string name;
  std::vector<std::pair<std::string, std::string>> files;  // Path below the root, content.
  std::string self_cgroup;
  std::optional<double> quota;
};

std::vector<Case> Cases() {
  const std::string v1 = "12:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/docker/abc\n";
  return {
      {"NoFiles", {}, "0::/\n", std::nullopt},
      {"NoSelfCgroup", {{"cpu.max", "100000 100000\n"}}, "", std::nullopt},
      {"V2Unlimited", {{"cpu.max", "max 100000\n"}}, "0::/\n", std::nullopt},
      {"V2AtTheRoot", {{"cpu.max", "150000 100000\n"}}, "0::/\n", 1.5},
      {"V2OtherPeriod", {{"cpu.max", "100000 50000\n"}}, "0::/", 2.0},
      {"V2Nested", {{"a/b/cpu.max", "50000 100000\n"}}, "0::/a/b\n", 0.5},
      {"V2TightestIsTheParent",
       {{"a/cpu.max", "50000 100000\n"}, {"a/b/cpu.max", "400000 100000\n"}},
       "0::/a/b\n",
       0.5},
      {"V2TightestIsTheChild", {{"a/cpu.max", "400000 100000\n"}, {"a/b/cpu.max", "70000 100000\n"}}, "0::/a/b\n", 0.7},
      {"V2SiblingDoesNotLimit", {{"a/c/cpu.max", "50000 100000\n"}}, "0::/a/b\n", std::nullopt},
      {"V2PathNotMountedFallsBackToTheRoot", {{"cpu.max", "300000 100000\n"}}, "0::/docker/abc\n", 3.0},
      {"V2PathOutsideTheNamespace", {{"cpu.max", "300000 100000\n"}}, "0::/../other\n", 3.0},
      {"V1",
       {{"cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "250000\n"},
        {"cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n"}},
       v1,
       2.5},
      {"V1ControllerLink", {{"cpu/cpu.cfs_quota_us", "250000\n"}, {"cpu/cpu.cfs_period_us", "100000\n"}}, v1, 2.5},
      {"V1Unlimited", {{"cpu/cpu.cfs_quota_us", "-1\n"}, {"cpu/cpu.cfs_period_us", "100000\n"}}, v1, std::nullopt},
      {"V1NoPeriod", {{"cpu/cpu.cfs_quota_us", "250000\n"}}, v1, std::nullopt},
      {"CpusetIsNotCpu",
       {{"cpuset/cpu.cfs_quota_us", "1\n"}, {"cpuset/cpu.cfs_period_us", "1\n"}},
       "3:cpuset:/\n",
       std::nullopt},
      {"Garbage", {{"cpu.max", "lots of it\n"}, {"a/cpu.max", ""}}, "0::/a\nnonsense\n::\n", std::nullopt},
      {"ZeroPeriod", {{"cpu.max", "100000 0\n"}}, "0::/\n", std::nullopt},
      {"UnreadableAsAFolderIs", {{"cpu.max/file", ""}, {"a/cpu.max", "50000 100000\n"}}, "0::/a\n", 0.5},
      {"NotANumber", {{"cpu.max", "nan 100000\n"}}, "0::/\n", std::nullopt},
  };
}

class CgroupCpuQuotaCases : public ::testing::TestWithParam<Case> {};

TEST_P(CgroupCpuQuotaCases, IsRead) {
  const fs::path root = fs::path(::testing::TempDir()) / ("cgroup_" + GetParam().name + std::to_string(::getpid()));
  fs::create_directories(root);
  for (const auto& [path, content] : GetParam().files) {
    fs::create_directories((root / path).parent_path());
    std::ofstream(root / path) << content;
  }
  EXPECT_EQ(CgroupCpuQuota(root.string(), GetParam().self_cgroup), GetParam().quota);
  fs::remove_all(root);
}

const auto kCaseName = [](const auto& info) { return info.param.name; };
INSTANTIATE_TEST_SUITE_P(All, CgroupCpuQuotaCases, ::testing::ValuesIn(Cases()), kCaseName);

TEST(AvailableCores, StaysWithinTheMachine) {
  EXPECT_GE(AvailableCores(), 1);
  EXPECT_LE(AvailableCores(), static_cast<int>(std::thread::hardware_concurrency()));
}

TEST(AvailableCores, HonoursTheAffinityMask) {
  int cores = 0;
  std::thread([&cores] {  // The mask belongs to the thread, so the test's own stays as it is.
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    cores = AvailableCores();
  })
      .join();
  EXPECT_EQ(cores, 1);
}

}  // namespace
}  // namespace attend
