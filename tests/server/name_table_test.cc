// The table behind the registry: what it finds, in which order, and that readers and writers do not disturb each other.
// Under ThreadSanitizer too.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "server/layers/layer_registry.h"

namespace attend::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Table = NameTable<std::string>;

std::vector<std::string> Texts(const std::vector<std::shared_ptr<const std::string>>& values) {
  std::vector<std::string> texts;
  for (const auto& value : values) texts.push_back(*value);
  return texts;
}

TEST(NameTableTest, FindsWhatWasPutLast) {
  Table table;
  EXPECT_EQ(table.Find("a"), nullptr);
  EXPECT_EQ(table.Put("a", std::make_shared<std::string>("1")), nullptr);
  EXPECT_EQ(*table.Put("a", std::make_shared<std::string>("2")), "1");
  EXPECT_EQ(*table.Find("a"), "2");
  EXPECT_EQ(table.size(), 1u);
  EXPECT_EQ(*table.Remove("a"), "2");
  EXPECT_EQ(table.Remove("a"), nullptr);
  EXPECT_EQ(table.Find("a"), nullptr);
}

TEST(NameTableTest, PagesAreSortedByBytes) {
  Table table;
  for (const char* name : {"b/1", "a", "b/0", "b", "b/10", "c", "b-"})
    table.Put(name, std::make_shared<std::string>(name));
  EXPECT_THAT(Texts(table.Page("", "", 100)), ElementsAre("a", "b", "b-", "b/0", "b/1", "b/10", "c"));
  EXPECT_THAT(Texts(table.Page("", "", 2)), ElementsAre("a", "b"));
  EXPECT_THAT(Texts(table.Page("", "b", 2)), ElementsAre("b-", "b/0"));
  EXPECT_THAT(Texts(table.Page("", "b/05", 1)), ElementsAre("b/1")) << "after a name that is gone";
  EXPECT_THAT(Texts(table.Page("b/", "", 100)), ElementsAre("b/0", "b/1", "b/10"));
  EXPECT_THAT(Texts(table.Page("b/", "b/0", 100)), ElementsAre("b/1", "b/10"));
  EXPECT_THAT(Texts(table.Page("b", "", 1)), ElementsAre("b"));
  EXPECT_THAT(table.Page("b/", "c", 100), IsEmpty());
  EXPECT_THAT(table.Page("x", "", 100), IsEmpty());
  EXPECT_THAT(table.Page("", "", 0), IsEmpty());
}

// A value that knows whether it is whole and how many of its kind there are.
struct Version {
  Version(int version, std::atomic<int>& live_versions) : live(live_versions) {
    for (int& number : numbers) number = version;
    live.fetch_add(1);
  }
  ~Version() {
    for (int& number : numbers) number = -1;
    live.fetch_sub(1);
  }
  std::atomic<int>& live;
  int numbers[64];
};

TEST(NameTableTest, ReadersSeeWholeVersionsWhichEndWithTheirLastReader) {
  constexpr int kReaders = 4, kWriters = 4, kRounds = 2000;
  std::atomic<int> live{0};
  std::atomic<int> torn{0}, found{0};
  std::atomic<bool> stop{false};
  NameTable<Version> table;
  std::vector<std::thread> readers, writers;
  for (int i = 0; i < kReaders; ++i) {
    readers.emplace_back([&] {
      while (!stop.load()) {
        if (const auto version = table.Find("layer")) {
          for (const int number : version->numbers) torn.fetch_add(number != version->numbers[0] || number < 0);
          found.fetch_add(1);
        }
        for (const auto& version : table.Page("l", "", 10)) torn.fetch_add(version->numbers[0] < 0);
      }
    });
  }
  for (int i = 0; i < kWriters; ++i) {
    writers.emplace_back([&, i] {
      for (int round = 0; round < kRounds; ++round) {
        table.Put("layer", std::make_shared<Version>(i * kRounds + round, live));
        table.Put("layer/" + std::to_string(i), std::make_shared<Version>(round, live));
        if (round % 3 == 0) table.Remove("layer");
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  // What is left is there for readers that have not had a turn yet.
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (found.load() == 0 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  stop.store(true);
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(torn.load(), 0);
  EXPECT_GT(found.load(), 0) << "the readers had nothing to look at";
  EXPECT_EQ(static_cast<std::size_t>(live.load()), table.size())
      << "a version outlived its table entry and its readers";
}

}  // namespace
}  // namespace attend::server
