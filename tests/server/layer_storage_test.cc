// Stored layers: what is written is found again, what is damaged or foreign is not served, and nothing is left behind.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/layer_store/layer_storage.h"
#include "server/layers/layer_registry.h"
#include "tests/support/temporary_folder.h"

namespace {

std::vector<std::string>* synced = nullptr;  // By this process, where a test asks.

}  // namespace

// In place of the C library's, as the program's own functions are.
extern "C" int fsync(int fd) {
  if (synced != nullptr) synced->push_back(std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd)));
  return static_cast<int>(syscall(SYS_fsync, fd));
}

namespace attend::server {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class LayerStorageTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<LayerStorage>> Open(StorageObserver observer = nullptr) {
    return LayerStorage::Open({.data_dir = data_.string(), .observer = std::move(observer)}, log_);
  }

  // What a server that starts now would serve: name and payload of each layer.
  std::vector<std::string> Load() {
    std::vector<std::string> layers;
    const auto storage = Open();
    EXPECT_TRUE(storage.ok()) << storage.status();
    const absl::Status loaded = (*storage)->LoadAll([&layers](const StoredLayer& layer) {
      layers.push_back(layer.record.header.name() + "=" + std::string(layer.payload.bytes));
      return absl::OkStatus();
    });
    EXPECT_TRUE(loaded.ok()) << loaded;
    return layers;
  }

  static LayerRecord Record(const std::string& name, NewLayerFile& file) {
    LayerRecord record;
    record.header.set_name(name);
    record.header.set_etag("etag");
    record.header.set_sha256(formats::ToHex(file.FinishHash()));
    record.create_time_ms = 1;
    return record;
  }

  void Store(LayerStorage& storage, const std::string& name, const std::string& payload) {
    absl::StatusOr<NewLayerFile> file = storage.Create();
    ASSERT_TRUE(file.ok()) << file.status();
    const std::string_view bytes = payload;
    ASSERT_TRUE(file->Append({bytes.substr(0, 1), std::string_view(), bytes.substr(1)}).ok());
    ASSERT_TRUE(file->Seal(Record(name, *file)).ok());
    bool renamed = false;
    ASSERT_TRUE(file->Publish(LayerFileName({kSharedTenant, name}), renamed).ok());
    EXPECT_TRUE(renamed);
  }
  void Store(const std::string& name, const std::string& payload) {
    const auto storage = Open();
    ASSERT_TRUE(storage.ok()) << storage.status();
    Store(**storage, name, payload);
  }

  std::vector<std::string> Files(const std::string& folder) const {
    std::vector<std::string> names;
    if (!fs::exists(data_ / folder)) return names;
    for (const auto& entry : fs::directory_iterator(data_ / folder)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  fs::path PathOf(const std::string& name) const { return data_ / "layers" / LayerFileName({kSharedTenant, name}); }
  static std::string Read(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  static void Write(const fs::path& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  }

  Log log_{{.level = spdlog::level::off}};
  const attend::testing::TemporaryFolder folder_;
  const fs::path root_ = folder_.path();
  fs::path data_ = root_ / "data";
};

TEST_F(LayerStorageTest, WhatWasStoredIsFound) {
  Store("b/c", "payload of b");
  Store("a", "payload of a");
  EXPECT_THAT(Load(), ElementsAre("a=payload of a", "b/c=payload of b"));
  EXPECT_THAT(Files("layers"), ElementsAre("a.layer", "b%c.layer"));
  EXPECT_EQ(Read(PathOf("a")).substr(0, 12), "payload of a") << "the payload starts the file";
}

TEST_F(LayerStorageTest, TheLastOneStoredWins) {
  Store("a", "old");
  Store("a", "newer");
  EXPECT_THAT(Load(), ElementsAre("a=newer"));
}

TEST_F(LayerStorageTest, AMappedPayloadOutlivesItsReplacement) {
  Store("a", "old");
  SharedBytes old;
  const auto storage = Open();
  ASSERT_TRUE((*storage)
                  ->LoadAll([&old](StoredLayer layer) {
                    old = std::move(layer.payload);
                    return absl::OkStatus();
                  })
                  .ok());
  Store(**storage, "a", "newer");
  bool removed = false;
  ASSERT_TRUE((*storage)->Remove({kSharedTenant, "a"}, removed).ok());
  EXPECT_EQ(old.bytes, "old");
}

TEST_F(LayerStorageTest, ARemovedLayerIsGone) {
  Store("a", "1");
  const auto storage = Open();
  bool removed = false;
  EXPECT_TRUE((*storage)->Remove({kSharedTenant, "a"}, removed).ok());
  EXPECT_TRUE(removed);
  EXPECT_THAT(Files("layers"), IsEmpty());
  EXPECT_TRUE((*storage)->Remove({kSharedTenant, "a"}, removed).ok()) << "what is gone stays gone";
  EXPECT_TRUE(removed);
  fs::create_directory(PathOf("b"));
  EXPECT_FALSE((*storage)->Remove({kSharedTenant, "b"}, removed).ok());
  EXPECT_FALSE(removed);
}

// Every byte is covered by a checksum or a rule, so that every torn or changed file is found out.
TEST_F(LayerStorageTest, EveryTornFileIsQuarantined) {
  Store("a", "the payload");
  const std::string whole = Read(PathOf("a"));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    Write(PathOf("a"), whole.substr(0, size));
    EXPECT_THAT(Load(), IsEmpty()) << "cut to " << size << " bytes";
  }
  EXPECT_THAT(Files("layers"), IsEmpty());
  EXPECT_THAT(Files("quarantine"), SizeIs(whole.size()));
}

TEST_F(LayerStorageTest, EveryChangedByteIsFoundOut) {
  Store("a", "the payload");
  const std::string whole = Read(PathOf("a"));
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string changed = whole;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    Write(PathOf("a"), changed);
    EXPECT_THAT(Load(), IsEmpty()) << "byte " << i << " of " << whole.size();
  }
  Write(PathOf("a"), whole + "x");
  EXPECT_THAT(Load(), IsEmpty()) << "a byte too many";
  Write(PathOf("a"), whole);
  EXPECT_THAT(Load(), ElementsAre("a=the payload"));
}

TEST_F(LayerStorageTest, ForeignFilesAreQuarantinedAndNotFollowed) {
  Store("a", "1");
  Write(root_ / "outside", Read(PathOf("a")));
  Write(data_ / "layers" / "README", "hello");
  fs::copy(PathOf("a"), PathOf("other"));  // The file of another layer.
  fs::create_symlink(root_ / "outside", PathOf("link"));
  fs::create_directory(data_ / "layers" / "folder.layer");
  ASSERT_EQ(mkfifo((data_ / "layers" / "pipe.layer").c_str(), 0600), 0);
  ASSERT_EQ(mknod((data_ / "layers" / "socket.layer").c_str(), S_IFSOCK | 0600, 0), 0);
  EXPECT_THAT(Load(), ElementsAre("a=1"));
  EXPECT_THAT(Files("layers"), ElementsAre("a.layer"));
  EXPECT_THAT(Files("quarantine"), SizeIs(6));
  EXPECT_TRUE(fs::exists(root_ / "outside"));
}

// Whether a file can be opened says nothing about the layer in it.
TEST_F(LayerStorageTest, AFileThatCannotBeOpenedStopsTheStartAndStays) {
  for (const char* name : {"a", "b", "c"}) Store(name, "payload");
  const auto storage = Open();
  rlimit usual{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &usual), 0);
  const absl::Status loaded = (*storage)->LoadAll([&usual](const StoredLayer&) {
    const rlimit none{.rlim_cur = 0, .rlim_max = usual.rlim_max};
    return setrlimit(RLIMIT_NOFILE, &none) == 0 ? absl::OkStatus() : absl::InternalError("no limit");
  });
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &usual), 0);
  EXPECT_EQ(loaded.code(), absl::StatusCode::kFailedPrecondition) << loaded;
  EXPECT_THAT(std::string(loaded.message()), HasSubstr("--data-dir"));
  EXPECT_THAT(std::string(loaded.message()), HasSubstr("layers/b.layer: cannot open the file: Too many open files"));
  EXPECT_THAT(Files("layers"), ElementsAre("a.layer", "b.layer", "c.layer"));
  EXPECT_THAT(Files("quarantine"), IsEmpty());
}

TEST_F(LayerStorageTest, WhatTheServerCannotLoadIsQuarantined) {
  Store("a", "no weights");
  const auto storage = Open();
  EXPECT_TRUE((*storage)->LoadAll([](const StoredLayer&) { return absl::InvalidArgumentError("no weights"); }).ok());
  EXPECT_THAT(Files("quarantine"), SizeIs(1));
}

TEST_F(LayerStorageTest, AnErrorOfTheServersOwnStopsTheStartAndMovesNothing) {
  Store("a", "1");
  const auto storage = Open();
  EXPECT_EQ((*storage)->LoadAll([](const StoredLayer&) { return absl::InternalError("a fault"); }).code(),
            absl::StatusCode::kInternal);
  EXPECT_THAT(Files("layers"), ElementsAre("a.layer"));
}

TEST_F(LayerStorageTest, ALimitStopsTheStartAndMovesNothing) {
  Store("a", "1");
  const auto storage = Open();
  EXPECT_EQ((*storage)->LoadAll([](const StoredLayer&) { return absl::ResourceExhaustedError("too many"); }).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Files("layers"), ElementsAre("a.layer"));
}

TEST_F(LayerStorageTest, UnfinishedUploadsLeaveNothing) {
  const auto storage = Open();
  {
    absl::StatusOr<NewLayerFile> file = (*storage)->Create();
    ASSERT_TRUE(file->Append({std::string_view("half")}).ok());
    EXPECT_THAT(Files("layers"), SizeIs(1));
  }
  EXPECT_THAT(Files("layers"), IsEmpty());
}

TEST_F(LayerStorageTest, WhatACrashLeftIsRemovedAtTheStart) {
  Store("a", "1");
  Write(data_ / "layers" / "17.tmp", "half");
  EXPECT_THAT(Load(), ElementsAre("a=1"));
  EXPECT_THAT(Files("layers"), ElementsAre("a.layer"));
  EXPECT_THAT(Files("quarantine"), IsEmpty());
}

TEST_F(LayerStorageTest, FilesOfVersionOneAreReadAndNewerOnesAreNot) {
  for (const char version : {1, 2, 3}) {
    Store("a", "payload");
    std::string file = Read(PathOf("a"));
    ASSERT_EQ(file[file.size() - 56], 2) << "what 0.1 refuses";
    file[file.size() - 56] = version;
    Write(PathOf("a"), file);
    EXPECT_THAT(Load(), SizeIs(version <= 2 ? 1 : 0)) << "version " << int{version};
  }
  EXPECT_THAT(Files("quarantine"), SizeIs(1));
}

TEST_F(LayerStorageTest, OneServerAtATime) {
  const auto first = Open();
  ASSERT_TRUE(first.ok());
  const absl::Status second = Open().status();
  EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.message()), HasSubstr("--data-dir"));
  EXPECT_THAT(std::string(second.message()), HasSubstr("another server"));
}

TEST_F(LayerStorageTest, AFolderThatCannotBeIsAClearError) {
  Write(root_ / "file", "");
  data_ = root_ / "file";
  EXPECT_THAT(std::string(Open().status().message()), HasSubstr("--data-dir"));
  data_ = root_ / "no" / "such" / "folder";
  EXPECT_THAT(std::string(Open().status().message()), HasSubstr("No such file"));
}

TEST_F(LayerStorageTest, AFolderThatIsASymbolicLinkInsideIsRefused) {
  fs::create_directory(data_);
  fs::create_directory(root_ / "elsewhere");
  fs::create_directory_symlink(root_ / "elsewhere", data_ / "layers");
  EXPECT_FALSE(Open().ok());
  EXPECT_TRUE(fs::is_empty(root_ / "elsewhere"));
}

// Or a loss of power takes the folder, and with it files that were synced.
TEST_F(LayerStorageTest, FoldersThatAreMadeAreSyncedIntoTheOneAbove) {
  std::vector<std::string> folders;
  synced = &folders;
  EXPECT_TRUE(Open().ok());
  const std::vector<std::string> first = std::exchange(folders, {});
  EXPECT_TRUE(Open().ok());
  synced = nullptr;
  const fs::path root = fs::canonical(root_);
  EXPECT_THAT(first, ElementsAre(root.string(), (root / "data").string()));
  EXPECT_THAT(folders, IsEmpty()) << "they were there";
}

TEST_F(LayerStorageTest, StepsComeInTheirOrder) {
  std::vector<StorageStep> steps;
  const auto storage = Open([&steps](StorageStep step) { steps.push_back(step); });
  Store(**storage, "a", "payload");
  bool removed = false;
  ASSERT_TRUE((*storage)->Remove({kSharedTenant, "a"}, removed).ok());
  EXPECT_THAT(steps, ElementsAre(StorageStep::kCreated, StorageStep::kChunkWritten, StorageStep::kSealed,
                                 StorageStep::kSynced, StorageStep::kRenamed, StorageStep::kFolderSynced,
                                 StorageStep::kRemoved, StorageStep::kRemovalSynced));
}

TEST_F(LayerStorageTest, WithoutAFolderEverythingIsInMemory) {
  const auto storage = LayerStorage::Open({}, log_);
  ASSERT_TRUE(storage.ok());
  absl::StatusOr<NewLayerFile> file = (*storage)->Create();
  ASSERT_TRUE(file.ok());
  EXPECT_FALSE(file->on_disk());
  ASSERT_TRUE(file->Append({std::string_view("pay"), std::string_view("load")}).ok());
  EXPECT_EQ(file->Map()->bytes, "payload");
  EXPECT_EQ(formats::ToHex(file->FinishHash()), "239f59ed55e737c77147cf55ad0c1b030b6d7ee748a7426952f9b852d5a935e5");
}

TEST(StorageErrorTest, SaysWhoCanHelp) {
  const absl::Status full = StorageError(ENOSPC, "cannot write the layer");
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()), HasSubstr("No space left"));
  EXPECT_EQ(StorageError(EDQUOT, "x").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(StorageError(EROFS, "x").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(StorageError(EIO, "x").code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace attend::server
