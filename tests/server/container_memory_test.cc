// How a container's memory limit is found, on trees of files that look like /sys/fs/cgroup.
#include "server/config/server_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace attend::server {
namespace {

struct Case {
  std::string name;
  std::vector<std::pair<std::string, std::string>> files;  // Path below the root, content.
  std::string self_cgroup;
  std::optional<std::int64_t> limit;
};

TEST(ContainerMemoryTest, TheTightestLimitAlongThePathCounts) {
  const std::string v1 = "5:cpu:/docker/abc\n4:memory:/docker/abc\n0::/\n";
  const std::vector<Case> cases = {
      {"NoFiles", {}, "0::/\n", std::nullopt},
      {"NoSelfCgroup", {{"memory.max", "1000\n"}}, "", std::nullopt},
      {"V2Unlimited", {{"memory.max", "max\n"}}, "0::/\n", std::nullopt},
      {"V2AtTheRoot", {{"memory.max", "4294967296\n"}}, "0::/\n", std::int64_t{4} << 30},
      {"V2ParentIsTighter", {{"a/memory.max", "10\n"}, {"a/b/memory.max", "20\n"}}, "0::/a/b\n", 10},
      {"V2ChildIsTighter", {{"a/memory.max", "20\n"}, {"a/b/memory.max", "10\n"}}, "0::/a/b\n", 10},
      {"V2ParentIsUnlimited", {{"a/memory.max", "max\n"}, {"a/b/memory.max", "10\n"}}, "0::/a/b\n", 10},
      {"V2SiblingDoesNotLimit", {{"a/c/memory.max", "10\n"}}, "0::/a/b\n", std::nullopt},
      {"V2PathNotMounted", {{"memory.max", "30\n"}}, "0::/docker/abc\n", 30},
      {"V2PathOutsideTheNamespace", {{"memory.max", "30\n"}}, "0::/../other\n", 30},
      {"V1", {{"memory/docker/abc/memory.limit_in_bytes", "50\n"}}, v1, 50},
      {"V1Unlimited", {{"memory/memory.limit_in_bytes", "9223372036854771712\n"}}, v1, std::nullopt},
      {"OtherControllersDoNotLimit", {{"cpu/memory.limit_in_bytes", "50\n"}}, "5:cpu:/\n", std::nullopt},
      {"Garbage", {{"memory.max", "lots\n"}, {"a/memory.max", ""}}, "0::/a\nnonsense\n::\n", std::nullopt},
      {"ZeroAndNegative", {{"memory.max", "0\n"}, {"a/memory.max", "-5\n"}}, "0::/a\n", std::nullopt},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const attend::testing::TemporaryFolder root;
    for (const auto& [name, content] : c.files) root.Write(name, content);
    EXPECT_EQ(CgroupMemoryLimit(root.path(), c.self_cgroup), c.limit);
  }
}

TEST(ContainerMemoryTest, WhatCannotBeReadLimitsNothing) {
  const attend::testing::TemporaryFolder root;
  root.Write("memory.max/a-folder-opens-and-cannot-be-read", "");
  root.Write("a/memory.max", "10\n");
  EXPECT_EQ(CgroupMemoryLimit(root.path(), "0::/a\n"), 10);
}

TEST(ContainerMemoryTest, ThePlanIsTheSumOfAllThatMayBeHeld) {
  ServerConfig config;
  config.limits.max_memory_in_flight_bytes = std::int64_t{512} << 20;
  config.layers.max_layers_bytes = std::int64_t{256} << 20;
  config.transport.memory_bytes = std::int64_t{128} << 20;
  const MemoryPlan plan = PlanMemory(config);
  EXPECT_EQ(plan.sum(), std::int64_t{1} << 30) << "the defaults in a container of 1 GiB";
  EXPECT_EQ(
      plan.Text(std::int64_t{1} << 30),
      "memory: 512 MiB in flight (--max-memory-in-flight-bytes) + 256 MiB for layers (--max-layers-bytes) + 128 MiB "
      "for the transport (--transport-memory-bytes) + 128 MiB for the process = 1024 MiB, of the container's 1024 MiB");
  EXPECT_LE(DefaultRequestBytes(), DefaultTransportBytes());
}

TEST(ContainerMemoryTest, APlanWithoutBoundsHasTheLargestSum) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  ServerConfig config;
  config.transport.memory_bytes = kMost;
  const MemoryPlan plan = PlanMemory(config);
  EXPECT_EQ(plan.uncounted(), kMost);
  EXPECT_EQ(plan.sum(), kMost);
  EXPECT_THAT(plan.Text(std::nullopt), ::testing::HasSubstr(" = 8796093022208 MiB"));
}

TEST(ContainerMemoryTest, TheDefaultBudgetIsAnAmountOfMemory) {
  EXPECT_GE(DefaultMemoryInFlightBytes(), 1);
  EXPECT_LE(DefaultMemoryInFlightBytes(), std::int64_t{1} << 59);
}

}  // namespace
}  // namespace attend::server
