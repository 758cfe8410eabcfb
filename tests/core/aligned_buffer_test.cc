#include "core/tensor/aligned_buffer.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/config.h"

namespace attend {
namespace {

// Around where a thread begins and ends to keep blocks and each of the sizes between, where memory begins to come from
// the system, and a huge page's multiples.
constexpr std::int64_t kSizes[] = {1,       63,      64,      65,      512,     513,     1024,  1025,
                                   2048,    2049,    4096,    4097,    8192,    8193,    16384, 16385,
                                   2097153, 8388607, 8388608, 8388609, 9437184, 10498105};

TEST(AlignedBufferTest, EveryByteOfEverySizeCanBeWrittenAndIsAligned) {
  for (const std::int64_t size : kSizes) {
    const AlignedBuffer<std::uint8_t> buffer(size);
    ASSERT_NE(buffer.data(), nullptr) << size;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % AlignedBuffer<std::uint8_t>::kAlignment, 0u) << size;
    std::memset(buffer.data(), 0x5A, static_cast<std::size_t>(size));
    EXPECT_EQ(buffer[0], 0x5A);
    EXPECT_EQ(buffer[size - 1], 0x5A);
  }
}

TEST(AlignedBufferTest, BuffersOfEverySizeLiveBesideEachOther) {
  AlignedBuffer<std::uint8_t> buffers[std::size(kSizes)];
  for (std::size_t i = 0; i < std::size(kSizes); ++i) {
    buffers[i] = AlignedBuffer<std::uint8_t>(kSizes[i]);
    std::memset(buffers[i].data(), static_cast<int>(i), static_cast<std::size_t>(kSizes[i]));
  }
  for (std::size_t i = 0; i < std::size(kSizes); ++i) {
    EXPECT_EQ(buffers[i][0], i);
    EXPECT_EQ(buffers[i][kSizes[i] - 1], i);
  }
}

// More than a thread keeps, twice, so that the second time some are those of the first.
TEST(AlignedBufferTest, BlocksThatAThreadKeepsAreGivenToOneBufferAtATime) {
  for (int round = 0; round < 2; ++round) {
    std::vector<AlignedBuffer<std::uint8_t>> buffers;
    for (int i = 0; i < 100; ++i) {
      buffers.emplace_back(513 + 7 * i);
      std::memset(buffers.back().data(), i, static_cast<std::size_t>(buffers.back().size()));
    }
    for (int i = 0; i < 100; ++i) {
      const AlignedBuffer<std::uint8_t>& buffer = buffers[static_cast<std::size_t>(i)];
      for (std::int64_t at = 0; at < buffer.size(); ++at) ASSERT_EQ(buffer[at], i) << at;
    }
  }
}

TEST(AlignedBufferTest, BuffersMayBeFreedByAnotherThread) {
  for (int round = 0; round < 50; ++round) {
    AlignedBuffer<std::uint8_t> buffer(3000);
    std::memset(buffer.data(), round, 3000);
    std::thread([buffer = std::move(buffer), round] { EXPECT_EQ(buffer[2999], round); }).join();
  }
}

// Made before the thread's blocks and so destroyed after them.
TEST(AlignedBufferTest, AThreadThatEndsMayFreeBuffersToTheLast) {
  std::thread([] {
    thread_local AlignedBuffer<std::uint8_t> outlives;
    EXPECT_EQ(outlives.data(), nullptr);
    outlives = AlignedBuffer<std::uint8_t>(2000);
    { const AlignedBuffer<std::uint8_t> kept(2000); }
  }).join();
}

TEST(AlignedBufferTest, MovingLeavesAnEmptyBufferAndMovesTheMemory) {
  AlignedBuffer<float> from(16);
  const float* memory = from.data();
  const AlignedBuffer<float> to = std::move(from);
  EXPECT_EQ(to.data(), memory);
  EXPECT_EQ(to.size(), 16);
  EXPECT_EQ(from.data(), nullptr);  // NOLINT(bugprone-use-after-move): what is promised.
  EXPECT_EQ(from.size(), 0);        // NOLINT(bugprone-use-after-move)
}

TEST(AlignedBufferTest, NothingIsTakenForNothing) {
  EXPECT_EQ(AlignedBuffer<float>().data(), nullptr);
  EXPECT_EQ(AlignedBuffer<float>(0).data(), nullptr);
}

#if !defined(ABSL_HAVE_ADDRESS_SANITIZER) && !defined(ABSL_HAVE_THREAD_SANITIZER)
// Of this process, in bytes.
std::int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  std::int64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * 4096;
}

// In a thread of its own, which has kept nothing before.
TEST(AlignedBufferTest, AThreadKeepsTheSmallBlocksOfManyCallsAtATimeAndNoMore) {
  std::thread([] {
    const std::size_t before = mallinfo2().uordblks;
    {
      std::vector<AlignedBuffer<std::uint8_t>> buffers;
      for (int i = 0; i < 100; ++i) buffers.emplace_back(3000);
    }
    const std::size_t kept = mallinfo2().uordblks - before;
    EXPECT_GE(kept, std::size_t{32} * 4096);
    EXPECT_LT(kept, std::size_t{40} * 4096);
  }).join();
}

TEST(AlignedBufferTest, MemoryLargerThanThePoolGoesBackToTheSystem) {
  constexpr std::int64_t kSize = static_cast<std::int64_t>(kMaxPooledBytes) + 1;
  const std::int64_t before = ResidentBytes();
  const std::size_t pooled = PooledBytes();
  {
    const AlignedBuffer<std::uint8_t> buffer(kSize);
    std::memset(buffer.data(), 1, kSize);
    EXPECT_GT(ResidentBytes(), before + kSize / 2);
  }
  EXPECT_LT(ResidentBytes(), before + kSize / 4);
  EXPECT_EQ(PooledBytes(), pooled);
}

TEST(AlignedBufferTest, LargeMemoryIsUsedAgainByTheNextOfItsSizeAlone) {
  constexpr std::int64_t kSize = 16 << 20;
  std::uint8_t* memory = nullptr;
  {
    const AlignedBuffer<std::uint8_t> buffer(kSize);
    memory = buffer.data();
  }
  const AlignedBuffer<std::uint8_t> other(kSize + (2 << 20));
  EXPECT_NE(other.data(), memory);
  const AlignedBuffer<std::uint8_t> slightly_less(kSize - 100);
  EXPECT_EQ(slightly_less.data(), memory);
  const AlignedBuffer<std::uint8_t> again(kSize);
  EXPECT_NE(again.data(), memory) << "it is in use";
}

TEST(AlignedBufferTest, WhatIsKeptIsBounded) {
  constexpr std::int64_t kSize = 20 << 20;
  {
    const AlignedBuffer<std::uint8_t> buffers[] = {
        AlignedBuffer<std::uint8_t>(kSize), AlignedBuffer<std::uint8_t>(kSize), AlignedBuffer<std::uint8_t>(kSize),
        AlignedBuffer<std::uint8_t>(kSize), AlignedBuffer<std::uint8_t>(kSize)};
    EXPECT_NE(buffers[4].data(), nullptr);
  }
  EXPECT_EQ(PooledBytes(), 3 * kSize);
}
#endif

}  // namespace
}  // namespace attend
