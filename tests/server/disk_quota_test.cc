// The bytes of the data folder: up to the last one, and whoever is refused takes none from others.
#include "server/layer_store/disk_quota.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace attend::server {
namespace {

TEST(DiskQuotaTest, GrantsUpToTheLastByteAndNotOneMore) {
  DiskQuota quota(10);
  EXPECT_TRUE(quota.Take(10).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(quota.Take(1)));
  EXPECT_EQ(quota.used_bytes(), 10);
  quota.Give(4);
  EXPECT_TRUE(absl::IsResourceExhausted(quota.Take(5)));
  EXPECT_TRUE(quota.Take(4).ok());
  quota.Add(5);
  EXPECT_TRUE(absl::IsResourceExhausted(quota.Take(1))) << "what was there already is beyond the limit";
  EXPECT_EQ(quota.used_bytes(), 15);
}

TEST(DiskQuotaTest, WhoIsRefusedRefusesNobodyElse) {
  constexpr int kRefusals = 100'000;
  DiskQuota quota(10);
  std::atomic<int> refusals{0};
  std::vector<std::thread> refused;
  for (int i = 0; i < 3; ++i) {
    refused.emplace_back([&] {
      while (refusals.fetch_add(1, std::memory_order_relaxed) < kRefusals) EXPECT_FALSE(quota.Take(11).ok());
    });
  }
  int failures = 0;
  while (refusals.load(std::memory_order_relaxed) < kRefusals) {
    if (quota.Take(10).ok()) {
      quota.Give(10);
    } else {
      ++failures;
    }
  }
  for (std::thread& thread : refused) thread.join();
  EXPECT_EQ(failures, 0);
}

}  // namespace
}  // namespace attend::server
