// What LayerStore changes on the disk and in memory, together, and what may be asked meanwhile.
#include "server/layer_store/layer_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <future>
#include <list>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/error.h"
#include "formats/files/sha256.h"
#include "server/layers/layer_config.h"
#include "tests/support/checkpoint_builder.h"
#include "tests/support/temporary_folder.h"

namespace attend::server {
namespace {

using ::attend::testing::CheckpointBuilder;
using ::attend::testing::Matrix;
using ::attend::testing::RandomMatrix;
using ::attend::testing::Transposed;
using ::testing::ElementsAre;
using ::testing::Pair;

class LayerStoreTest : public ::testing::Test {
 protected:
  void Open(StorageObserver observer) {
    auto store = LayerStore::Open(
        {.limits = {}, .storage = {.data_dir = folder_.path() + "/data", .observer = std::move(observer)}}, {}, log_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  auto Create(const std::string& name, std::int64_t seed, AccountRef account = nullptr,
              std::int64_t max_layers_bytes = TenantLimits::kNone) {
    v1::CreateLayerHeader header;
    header.set_name(name);
    header.set_replace(true);
    header.mutable_init()->set_seed(seed);
    header.mutable_init()->set_embed_dim(16);
    auto upload = store_->BeginUpload(
        {.tenant = "shop", .account = std::move(account), .max_layers_bytes = max_layers_bytes}, header);
    EXPECT_TRUE(upload.ok()) << upload.status();
    return store_->FinishUpload(*upload, cancelled_, executor_, memory_);
  }

  // A layer `name` of two heads from a file.
  auto Upload(const std::string& name, const std::string& file, MemoryBudget& memory) {
    v1::CreateLayerHeader header;
    header.set_name(name);
    header.mutable_config()->set_num_heads(2);
    auto upload = store_->BeginUpload({.tenant = "shop"}, header);
    EXPECT_TRUE(upload.ok()) << upload.status();
    const std::string_view piece = file;
    EXPECT_TRUE(upload->Append({&piece, 1}).ok());
    return store_->FinishUpload(*upload, cancelled_, executor_, memory);
  }

  // Puts the layer `a` where a server finds it at its start. REQUIRES: not open.
  void Store(const std::string& payload, const v1::LayerConfig& config) {
    const auto storage = LayerStorage::Open({.data_dir = folder_.path() + "/data"}, log_);
    ASSERT_TRUE(storage.ok()) << storage.status();
    auto file = (*storage)->Create();
    const std::string_view piece = payload;
    ASSERT_TRUE(file.ok() && file->Append({&piece, 1}).ok());
    LayerRecord record;
    record.tenant = "shop";
    record.header.set_name("a");
    record.header.set_etag("etag");
    record.header.set_sha256(formats::ToHex(file->FinishHash()));
    *record.header.mutable_config() = config;
    bool renamed = false;
    ASSERT_TRUE(file->Seal(record).ok() && file->Publish(LayerFileName({"shop", "a"}), renamed).ok());
  }

  const attend::testing::TemporaryFolder folder_;
  Log log_{{.level = spdlog::level::off}};
  const std::atomic<bool> cancelled_{false};
  Executor executor_{{.num_threads = 1}};
  MemoryBudget memory_{1 << 30};
  std::list<MemoryBudget> budgets_;  // Others, which outlive the layers too.
  std::unique_ptr<LayerStore> store_;
};

// A header has no `layer` and no norms, and nothing that the file's metadata say.
TEST_F(LayerStoreTest, ErrorsAreAboutTheHeaderOrTheBytes) {
  Open({});
  std::mt19937 random(1);
  const auto builder = [&random](std::int64_t norm_size, std::int64_t inputs) {
    CheckpointBuilder layer;
    for (const char* const name : {"q_proj.weight", "k_proj.weight", "v_proj.weight"}) {
      layer.Add(name, RandomMatrix(8, 8, random));
    }
    layer.AddVector("q_norm.weight", RandomMatrix(norm_size, 1, random));
    layer.AddVector("k_norm.weight", RandomMatrix(4, 1, random));
    return layer.Add("o_proj.weight", RandomMatrix(8, inputs, random));
  };
  const auto field = [this](CheckpointBuilder layer, const char* json) {
    v1::CreateLayerHeader header;
    header.set_name("a");
    header.set_replace(true);
    *header.mutable_config() = *ParseLayerConfig(json);
    auto upload = store_->BeginUpload({.tenant = "shop"}, header);
    EXPECT_TRUE(upload.ok()) << upload.status();
    const std::string file = layer.Build();
    const std::string_view piece = file;
    EXPECT_TRUE(upload->Append({&piece, 1}).ok());
    const absl::Status status = store_->FinishUpload(*upload, cancelled_, executor_, memory_).status();
    return status.ok() ? "none" : GetErrorDetails(status).field;
  };
  constexpr char kTwo[] = R"({"num_heads": 2})";
  EXPECT_EQ(field(builder(4, 8), kTwo), "none");
  EXPECT_EQ(field(builder(5, 8), kTwo), "chunk");
  EXPECT_EQ(field(builder(4, 7), kTwo), "chunk");
  EXPECT_EQ(field(builder(4, 8), R"({"num_heads": 2, "norm_epsilon": 1e39})"), "header.config.norm_epsilon");
  EXPECT_EQ(field(builder(4, 8), R"({"num_heads": 7})"), "header.config.num_heads");
  EXPECT_EQ(field(builder(4, 8), "{}"), "header.config.num_heads") << "is missing";
  for (const char* const bad : {"7", "2000"}) {
    EXPECT_EQ(field(builder(4, 8).Metadata("num_heads", bad), "{}"), "chunk") << bad;
    EXPECT_EQ(field(builder(4, 8).Metadata("num_heads", bad), R"({"num_heads": 3})"), "header.config.num_heads") << bad;
  }
  EXPECT_EQ(field(builder(4, 8).Metadata("attend.layer_config", R"({"options": {"softcap": -1}})"), kTwo), "chunk");
}

TEST_F(LayerStoreTest, ALengthThatNothingDependsOnIsRefusedBeforeAnyBytes) {
  Open({});
  const auto refusal = [this](const char* json) {
    v1::CreateLayerHeader header;
    header.set_name("a");
    *header.mutable_config() = *ParseLayerConfig(json);
    return store_->BeginUpload({.tenant = "shop"}, header).status();
  };
  for (const char* const json : {R"({"rotary_embedding": {"linear_factor": 4, "original_context_length": 4096}})",
                                 R"({"rotary_embedding": {"original_context_length": -5}})",
                                 R"({"rotary_embedding": {"frequencies": [1, 0.5], "original_context_length": 8}})"}) {
    EXPECT_EQ(GetErrorDetails(refusal(json)).field, "header.config.rotary_embedding.original_context_length") << json;
  }
  for (const char* const json :
       {R"({"rotary_embedding": {"dynamic_factor": 4, "original_context_length": 4096}})",
        R"({"rotary_embedding": {"frequencies": [1], "long_frequencies": [0.5], "original_context_length": 8}})",
        R"({"rotary_embedding": {"linear_factor": 4}})",
        R"({"rotary_embedding": {"form": "ROTARY_FORM_NONE", "original_context_length": 8}})", "{}"}) {
    EXPECT_TRUE(refusal(json).ok()) << json << refusal(json);
  }
}

// The thread that answers /livez asks, at every scrape.
TEST_F(LayerStoreTest, MemoryIsReadWhileAnotherThreadWaitsForTheDisk) {
  std::future<std::int64_t> read;  // Its end is waited for when no lock is held any more.
  int waited = 0;
  Open([&](StorageStep step) {
    if (step != StorageStep::kRenamed && step != StorageStep::kRemoved) return;
    read = std::async(std::launch::async, [this] { return store_->bytes().OfTenant("shop") + store_->bytes().held(); });
    EXPECT_EQ(read.wait_for(std::chrono::seconds(10)), std::future_status::ready) << static_cast<int>(step);
    ++waited;
  });
  ASSERT_TRUE(Create("a", 1).ok());
  const std::int64_t bytes = store_->bytes().held();
  EXPECT_GT(bytes, 0);
  EXPECT_EQ(store_->bytes().OfTenant("shop"), bytes);
  EXPECT_EQ(store_->bytes().OfTenant("other"), 0);
  ASSERT_TRUE(Create("a", 2).ok());
  EXPECT_EQ(store_->bytes().held(), bytes);
  ASSERT_TRUE(store_->Delete({"shop", "a"}, "").ok());
  EXPECT_EQ(waited, 3);
  EXPECT_EQ(store_->bytes().OfTenant("shop") + store_->bytes().held(), 0);
}

TEST_F(LayerStoreTest, WhatAnUploadTakesForAWhileIsItsCallers) {
  Open({});
  const AccountRef caller = std::make_shared<Account>("ann", std::make_shared<Tenant>("shop"), /*is_exempt=*/false);
  caller->tenant->SetLimits({.max_memory_in_flight_bytes = 1});
  const absl::Status refused = Create("a", 1, caller).status();
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_THAT(GetErrorDetails(refused).metadata, ElementsAre(Pair("quota", "max_memory_in_flight_bytes")));
  EXPECT_EQ(store_->bytes().held(), 0);
  caller->tenant->SetLimits({});
  auto created = Create("a", 1, caller);
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(caller->memory_bytes, 0) << "the weights that were made are gone";
  const std::int64_t bytes = created->layer->description().memory_bytes();
  ASSERT_TRUE(Create("a", 2, caller).ok());  // The old one is still in use.
  EXPECT_EQ(caller->memory_bytes, bytes);
  EXPECT_EQ(caller->tenant->memory_bytes(), bytes);
  EXPECT_EQ(memory_.in_use_bytes(MemoryBudget::User::kUploads), bytes);
  created->layer.reset();
  EXPECT_EQ(caller->memory_bytes, 0);
  EXPECT_EQ(memory_.in_use_bytes(), 0);
}

// Or a tenant that calls and deletes its layers by turns would take all memory that layers have.
TEST_F(LayerStoreTest, ADeletedLayerIsItsTenantsUntilItsLastUseEnds) {
  Open({});
  auto created = Create("a", 1);
  ASSERT_TRUE(created.ok()) << created.status();
  const std::int64_t bytes = store_->bytes().OfTenant("shop");
  ASSERT_GT(bytes, 0);
  ASSERT_TRUE(store_->Delete({"shop", "a"}, "").ok());
  EXPECT_EQ(store_->bytes().held(), bytes);
  EXPECT_EQ(store_->bytes().OfTenant("shop"), bytes);
  EXPECT_TRUE(absl::IsResourceExhausted(Create("b", 1, nullptr, bytes).status()));
  created->layer.reset();
  EXPECT_EQ(store_->bytes().OfTenant("shop"), 0);
  EXPECT_EQ(store_->bytes().held(), 0);
  const auto replaced = Create("b", 1, nullptr, bytes);
  ASSERT_TRUE(replaced.ok()) << replaced.status();
  const auto last = Create("b", 2, nullptr, bytes);
  ASSERT_TRUE(last.ok()) << "a replaced one is memory in flight, and no part of the quota: " << last.status();
  ASSERT_TRUE(store_->Delete({"shop", "b"}, "").ok());
  store_.reset();  // Both layers outlive it.
}

TEST_F(LayerStoreTest, WhatTheTenantsQuotaRefusesIsCounted) {
  Open({});
  const AccountRef caller = std::make_shared<Account>("ann", std::make_shared<Tenant>("shop"), /*is_exempt=*/false);
  ASSERT_TRUE(Create("a", 1, caller).ok());
  EXPECT_EQ(caller->tenant->refusals(), 0);
  const std::int64_t bytes = store_->bytes().OfTenant("shop");
  EXPECT_TRUE(absl::IsResourceExhausted(Create("b", 1, caller, 2 * bytes - 1).status())) << "beside the other one";
  EXPECT_EQ(caller->tenant->refusals(), 1);
  EXPECT_TRUE(absl::IsResourceExhausted(Create("b", 1, caller, bytes - 1).status())) << "by itself";
  EXPECT_EQ(caller->tenant->refusals(), 2);
}

// Version 0.1 took such a layer without a scale, and served it with 1.
TEST_F(LayerStoreTest, AStoredLayerThatWouldBeRefusedNowIsServedOn) {
  std::mt19937 random(1);
  CheckpointBuilder bare;
  for (const char* const name : {"q.weight", "k.weight", "v.weight", "o.weight"}) {
    bare.Add(name, RandomMatrix(8, 8, random));
  }
  const std::string payload = bare.Build();
  v1::LayerConfig two;
  two.set_num_heads(2);
  Store(payload, two);
  Open({});
  const auto layer = store_->registry().Find({"shop", "a"});
  ASSERT_NE(layer, nullptr) << "in quarantine";
  EXPECT_EQ(layer->description().config().options().scale(), 1);
  EXPECT_TRUE(absl::IsInvalidArgument(Upload("b", payload, memory_).status()));
}

// Configurations of a layer that has a tensor to ignore, in JSON.
class LayerConfigs : public LayerStoreTest {
 protected:
  // Names it so many times.
  static std::string Names(int count) {
    return absl::StrCat(R"({"num_heads": 1, "ignored_tensors": [)", List(R"("junk")", count), "]}");
  }
  // With so many numbers that have no effect.
  static std::string Vain(int count) {
    return absl::StrCat(R"({"ignored_tensors": ["junk"], "rotary_embedding": {"form": "ROTARY_FORM_NONE", )",
                        R"("frequencies": [)", List("0", count), "]}}");
  }
  static std::string File(const std::string& metadata) {
    std::mt19937 random(1);
    CheckpointBuilder layer;
    for (const char* const name : {"query.weight", "key.weight", "value.weight", "junk"}) {
      layer.Add(name, RandomMatrix(8, 8, random));
    }
    return layer.Metadata("attend.layer_config", metadata).Build();
  }
  // The memory that the layer takes which an upload makes.
  absl::StatusOr<std::int64_t> MemoryOf(const std::string& metadata, const std::string& given) {
    v1::CreateLayerHeader header;
    header.set_name("a");
    header.set_replace(true);
    *header.mutable_config() = *ParseLayerConfig(given);
    auto upload = store_->BeginUpload({.tenant = "shop"}, header);
    if (!upload.ok()) return upload.status();
    const std::string file = File(metadata);
    const std::string_view piece = file;
    EXPECT_TRUE(upload->Append({&piece, 1}).ok());
    const auto created = store_->FinishUpload(*upload, cancelled_, executor_, memory_);
    if (!created.ok()) return created.status();
    const std::int64_t bytes = created->layer->description().memory_bytes();
    EXPECT_EQ(store_->bytes().OfTenant("shop"), bytes);
    return bytes;
  }
  std::string FieldOfRefusal(const std::string& metadata, const std::string& given) {
    const absl::Status status = MemoryOf(metadata, given).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return GetErrorDetails(status).field;
  }

 private:
  static std::string List(const std::string& each, int count) {
    return absl::StrJoin(std::vector<std::string>(static_cast<std::size_t>(count), each), ",");
  }
};

TEST_F(LayerConfigs, ThoseThatAreLargeCount) {
  Open({});
  const auto little = MemoryOf("{}", Names(1)), some = MemoryOf(Vain(500), Names(1));
  ASSERT_TRUE(little.ok() && some.ok()) << little.status() << some.status();
  EXPECT_EQ(*some, *little);
  for (const auto& [metadata, given] : {std::pair(Vain(8000), Names(1)), std::pair(std::string("{}"), Vain(8000)),
                                        std::pair(Names(1024), Names(1)), std::pair(Names(1024), Names(1024))}) {
    const auto much = MemoryOf(metadata, given);
    ASSERT_TRUE(much.ok()) << much.status();
    EXPECT_GE(*much, *little + 64'000);
    EXPECT_LE(*much, *little + 200'000);
  }
}

// A mebibyte of a file could become ten in memory, for as long as there is the layer.
TEST_F(LayerConfigs, ThoseThatAreTooLargeAreRefused) {
  Open({});
  EXPECT_EQ(FieldOfRefusal(Vain(9000), Names(1)), "chunk");
  EXPECT_EQ(FieldOfRefusal(Names(1025), Names(1)), "chunk");
  EXPECT_EQ(FieldOfRefusal("{}", Names(1025)), "header.config.ignored_tensors");
  v1::CreateLayerHeader seeded;
  seeded.set_name("a");
  seeded.mutable_init()->set_embed_dim(8);
  *seeded.mutable_config() = *ParseLayerConfig(Names(1));
  EXPECT_EQ(GetErrorDetails(store_->BeginUpload({.tenant = "shop"}, seeded).status()).field,
            "header.config.ignored_tensors");
}

TEST_F(LayerConfigs, ThoseThatAreStoredAreServedOn) {
  Store(File(Vain(9000)), *ParseLayerConfig(Names(1025)));
  Open({});
  const auto layer = store_->registry().Find({"shop", "a"});
  ASSERT_NE(layer, nullptr) << "in quarantine";
  EXPECT_EQ(layer->description().config().rotary_embedding().frequencies_size(), 9000);
  EXPECT_EQ(layer->description().config().ignored_tensors_size(), 1026);
  EXPECT_EQ(store_->bytes().OfTenant("shop"), layer->description().memory_bytes());
}

// Weights behind a header of an odd length, across and in groups cannot be packed where they are.
TEST_F(LayerStoreTest, CopiesOfWeightsCountBeforeTheyAreMade) {
  Open({});
  std::mt19937 random(1);
  const Matrix square = RandomMatrix(64, 64, random), three = RandomMatrix(3 * 64, 64, random);
  CheckpointBuilder separate, across, groups;
  for (const char* const name : {"query.weight", "key.weight", "value.weight"}) separate.Add(name, square);
  across.Add("attn.c_attn.weight", Transposed(three)).Add("attn.c_proj.weight", square);
  groups.Add("query_key_value.weight", three).Add("dense.weight", square);
  constexpr std::int64_t kSquare = 64 * 64 * 4;
  const struct {
    const char* name;
    std::string file;
    std::int64_t copied;
  } cases[] = {
      {"aligned", separate.Build(), 0},
      {"unaligned", separate.Build(1), 3 * kSquare},
      {"across", across.Build(), 4 * kSquare},
      {"groups", groups.Build(), 3 * kSquare},
  };
  for (const auto& test : cases) {
    SCOPED_TRACE(test.name);
    const std::int64_t held = store_->bytes().held();
    if (test.copied > 0) {
      MemoryBudget& little = budgets_.emplace_back(test.copied - 1);
      const absl::Status status = Upload(test.name, test.file, little).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
      EXPECT_THAT(GetErrorDetails(status).metadata, ElementsAre(Pair("flag", "--max-memory-in-flight-bytes")));
      EXPECT_EQ(GetErrorDetails(status).field, "") << "it is nothing about the file";
      EXPECT_EQ(little.in_use_bytes(), 0);
      EXPECT_EQ(store_->bytes().held(), held);
    }
    MemoryBudget& enough = budgets_.emplace_back(std::max<std::int64_t>(test.copied, 1));
    const auto created = Upload(test.name, test.file, enough);
    EXPECT_TRUE(created.ok()) << created.status();
    EXPECT_EQ(enough.in_use_bytes(), 0) << "the copies are gone";
    EXPECT_GT(store_->bytes().held(), held);
  }
}

}  // namespace
}  // namespace attend::server
