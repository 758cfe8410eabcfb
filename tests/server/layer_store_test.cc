// What LayerStore changes on the disk and in memory, together, and what may be asked meanwhile.
#include "server/layer_store/layer_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <memory>
#include <string>

#include "tests/support/temporary_folder.h"

namespace attend::server {
namespace {

class LayerStoreTest : public ::testing::Test {
 protected:
  void Open(StorageObserver observer) {
    auto store = LayerStore::Open(
        {.limits = {}, .storage = {.data_dir = folder_.path() + "/data", .observer = std::move(observer)}}, {}, log_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  auto Create(const std::string& name, std::int64_t seed) {
    v1::CreateLayerHeader header;
    header.set_name(name);
    header.set_replace(true);
    header.mutable_init()->set_seed(seed);
    header.mutable_init()->set_embed_dim(16);
    auto upload = store_->BeginUpload({.tenant = "shop"}, header);
    EXPECT_TRUE(upload.ok()) << upload.status();
    return store_->FinishUpload(*upload, cancelled_, executor_, memory_);
  }

  const attend::testing::TemporaryFolder folder_;
  Log log_{{.level = spdlog::level::off}};
  const std::atomic<bool> cancelled_{false};
  Executor executor_{{.num_threads = 1}};
  MemoryBudget memory_{1 << 30};
  std::unique_ptr<LayerStore> store_;
};

// The thread that answers /livez asks, at every scrape.
TEST_F(LayerStoreTest, MemoryIsReadWhileAnotherThreadWaitsForTheDisk) {
  std::future<std::int64_t> read;  // Its end is waited for when no lock is held any more.
  int waited = 0;
  Open([&](StorageStep step) {
    if (step != StorageStep::kRenamed && step != StorageStep::kRemoved) return;
    read = std::async(std::launch::async, [this] {
      return store_->bytes().registered() + store_->bytes().OfTenant("shop") + store_->bytes().held();
    });
    EXPECT_EQ(read.wait_for(std::chrono::seconds(10)), std::future_status::ready) << static_cast<int>(step);
    ++waited;
  });
  ASSERT_TRUE(Create("a", 1).ok());
  const std::int64_t bytes = store_->bytes().registered();
  EXPECT_GT(bytes, 0);
  EXPECT_EQ(store_->bytes().OfTenant("shop"), bytes);
  EXPECT_EQ(store_->bytes().OfTenant("other"), 0);
  ASSERT_TRUE(Create("a", 2).ok());
  EXPECT_EQ(store_->bytes().registered(), bytes);
  ASSERT_TRUE(store_->Delete({"shop", "a"}, "").ok());
  EXPECT_EQ(waited, 3);
  EXPECT_EQ(store_->bytes().registered() + store_->bytes().OfTenant("shop") + store_->bytes().held(), 0);
}

}  // namespace
}  // namespace attend::server
