// How a container's memory limit is found, on trees of files that look like /sys/fs/cgroup, and what the defaults make
// of it and of the machine's memory.
#include "server/config/server_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace attend::server {
namespace {

constexpr std::int64_t kGiB = std::int64_t{1} << 30;

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
  const std::string parts =
      "memory: 512 MiB in flight (--max-memory-in-flight-bytes) + 256 MiB for layers (--max-layers-bytes) + 128 MiB "
      "for the transport (--transport-memory-bytes) + 128 MiB for the process = 1024 MiB";
  EXPECT_EQ(plan.Text({.container = kGiB, .machine = 4 * kGiB}), parts + ", of the container's 1024 MiB");
  EXPECT_EQ(plan.Text({.container = 4 * kGiB, .machine = 2 * kGiB}), parts + ", of the machine's 2048 MiB");
  EXPECT_EQ(plan.Text({.machine = 2 * kGiB}), parts + ", of the machine's 2048 MiB");
  EXPECT_EQ(plan.Text({}), parts);
  EXPECT_FALSE(plan.Exceeds({.container = kGiB, .machine = kGiB}));
  EXPECT_FALSE(plan.Exceeds({}));
  EXPECT_TRUE(plan.Exceeds({.container = kGiB - 1}));
  EXPECT_TRUE(plan.Exceeds({.container = 4 * kGiB, .machine = kGiB - 1}));
}

TEST(ContainerMemoryTest, APlanWithoutBoundsHasTheLargestSum) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  ServerConfig config;
  config.transport.memory_bytes = kMost;
  const MemoryPlan plan = PlanMemory(config);
  EXPECT_EQ(plan.uncounted(), kMost);
  EXPECT_EQ(plan.sum(), kMost);
  EXPECT_THAT(plan.Text({}), ::testing::HasSubstr(" = 8796093022208 MiB"));
}

// On a virtual machine of 1 GiB the defaults were 4 GiB in flight, 4 GiB for layers and 1 GiB for the transport.
TEST(ContainerMemoryTest, TheDefaultsFitWhatThereIs) {
  constexpr std::int64_t kMiB = std::int64_t{1} << 20;
  const struct {
    std::string name;
    MemoryBounds bounds;
    std::int64_t in_flight, layers, transport, request;
  } cases[] = {
      {"NothingIsKnown", {}, 4 * kGiB, 4 * kGiB, kGiB, 256 * kMiB},
      {"SmallMachine", {.machine = kGiB}, 512 * kMiB, 256 * kMiB, 128 * kMiB, 128 * kMiB},
      {"Machine", {.machine = 8 * kGiB}, 4 * kGiB, 2 * kGiB, kGiB, 256 * kMiB},
      {"LargeMachine", {.machine = 256 * kGiB}, 4 * kGiB, 4 * kGiB, kGiB, 256 * kMiB},
      {"Container", {.container = kGiB, .machine = 256 * kGiB}, 512 * kMiB, 256 * kMiB, 128 * kMiB, 128 * kMiB},
      {"LargeContainer", {.container = 64 * kGiB, .machine = 256 * kGiB}, 32 * kGiB, 16 * kGiB, kGiB, 256 * kMiB},
      {"LargerThanItsMachine", {.container = 64 * kGiB, .machine = 2 * kGiB}, kGiB, 512 * kMiB, 256 * kMiB, 256 * kMiB},
      {"TinyContainer", {.container = 1, .machine = kGiB}, 1, 1, 1, 1},
  };
  for (const auto& test : cases) {
    SCOPED_TRACE(test.name);
    EXPECT_EQ(DefaultMemoryInFlightBytes(test.bounds), test.in_flight);
    EXPECT_EQ(DefaultLayersBytes(test.bounds), test.layers);
    EXPECT_EQ(DefaultTransportBytes(test.bounds), test.transport);
    EXPECT_EQ(DefaultRequestBytes(test.bounds), test.request);
  }
}

TEST(ContainerMemoryTest, AServerOfThisMachineFitsIntoIt) {
  const MemoryBounds bounds = ReadMemoryBounds();
  ASSERT_TRUE(bounds.machine.has_value());
  EXPECT_GE(*bounds.machine, 64 << 20);
  ASSERT_TRUE(bounds.tightest().has_value());
  if (*bounds.tightest() >= kGiB) {
    EXPECT_FALSE(PlanMemory(ServerConfig()).Exceeds(bounds));
  }
  EXPECT_EQ(ServerConfig().limits.max_memory_in_flight_bytes, DefaultMemoryInFlightBytes());
}

}  // namespace
}  // namespace attend::server
