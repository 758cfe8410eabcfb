// The log's writer: lines come out whole and in order, and a reader that does not read stops nobody.
#include "server/base/line_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace attend::server {
namespace {

class Pipe {
 public:
  Pipe() { EXPECT_EQ(pipe(fds_), 0); }
  ~Pipe() {
    close(fds_[0]);
    CloseEnd();
  }
  int end() const { return fds_[1]; }
  int reading_end() const { return fds_[0]; }
  void CloseEnd() {
    if (fds_[1] >= 0) close(fds_[1]);
    fds_[1] = -1;
  }
  // All until the other end is closed.
  std::string ReadAll() const {
    std::string text;
    char piece[4096];
    for (ssize_t size = 0; (size = read(fds_[0], piece, sizeof piece)) > 0;) {
      text.append(piece, static_cast<std::size_t>(size));
    }
    return text;
  }

 private:
  int fds_[2] = {-1, -1};
};

TEST(LineWriterTest, LinesOfManyThreadsComeOutWholeAndEachThreadsInOrder) {
  constexpr int kThreads = 4, kLines = 2000;
  Pipe pipe;
  std::string text;
  std::thread reader([&] { text = pipe.ReadAll(); });
  {
    LineWriter writer(pipe.end(), /*max_bytes=*/64 << 20);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&writer, t] {
        for (int i = 0; i < kLines; ++i) writer.Write(std::to_string(t) + " " + std::to_string(i) + "\n");
      });
    }
    for (std::thread& thread : threads) thread.join();
    writer.Flush(std::chrono::seconds(60));
    EXPECT_EQ(writer.dropped(), 0);
  }
  pipe.CloseEnd();
  reader.join();
  std::vector<int> next(kThreads, 0);
  std::size_t begin = 0;
  for (std::size_t end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string line = text.substr(begin, end - begin);
    const int t = line.at(0) - '0';
    ASSERT_TRUE(t >= 0 && t < kThreads) << line;
    ASSERT_EQ(line, std::to_string(t) + " " + std::to_string(next[static_cast<std::size_t>(t)]++));
  }
  EXPECT_EQ(next, std::vector<int>(kThreads, kLines));
}

TEST(LineWriterTest, WithoutAReaderLinesAreDroppedAndCounted) {
  const Pipe pipe;
  const auto writer = std::make_unique<LineWriter>(pipe.end(), /*max_bytes=*/1 << 20);
  const std::string line = std::string(99, 'x') + "\n";
  constexpr int kLines = 50000;  // 5 MB, of which the pipe takes 64 KiB and the writer a megabyte.
  for (int i = 0; i < kLines; ++i) writer->Write(line);
  EXPECT_GT(writer->dropped(), kLines / 2);
  EXPECT_LT(writer->dropped(), kLines);
  EXPECT_EQ(writer->TakeDropped(), 0) << "there is no room to say so";
}

TEST(LineWriterTest, WhatWasDroppedIsToldOnceThereIsRoomAgain) {
  Pipe pipe;
  LineWriter writer(pipe.end(), /*max_bytes=*/1 << 20);
  const std::string line = std::string(99, 'x') + "\n";
  for (int i = 0; i < 50000; ++i) writer.Write(line);
  std::thread reader([&] { pipe.ReadAll(); });
  writer.Flush(std::chrono::seconds(60));
  EXPECT_EQ(writer.TakeDropped(), writer.dropped());
  EXPECT_EQ(writer.TakeDropped(), 0) << "told twice";
  pipe.CloseEnd();
  reader.join();
}

TEST(LineWriterTest, TheEndDoesNotWaitForAReaderThatIsSlow) {
  constexpr std::size_t kBytes = 1 << 20;  // At the reader's pace, of a page in 20 ms, five seconds.
  Pipe pipe;
  std::atomic<bool> ended = false;
  std::size_t got = 0;
  std::thread reader([&] {
    char page[4096];
    while (!ended) {
      got += static_cast<std::size_t>(std::max<ssize_t>(read(pipe.reading_end(), page, sizeof page), 0));
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    got += pipe.ReadAll().size();
  });
  {
    LineWriter writer(pipe.end(), kBytes);
    for (std::size_t i = 0; i < kBytes / 1024; ++i) writer.Write(std::string(1023, 'x') + "\n");
  }
  ended = true;
  pipe.CloseEnd();
  reader.join();
  EXPECT_LT(got, kBytes) << "it waited until all was read";
}

TEST(LineWriterTest, TheEndDoesNotWaitForATerminalThatNobodyReads) {
  const int reader = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  char name[64] = "";
  ASSERT_TRUE(grantpt(reader) == 0 && unlockpt(reader) == 0 && ptsname_r(reader, name, sizeof name) == 0);
  const int terminal = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
  auto writer = std::make_unique<LineWriter>(terminal, /*max_bytes=*/1 << 20);
  for (int i = 0; i < 100; ++i) writer->Write(std::string(9999, 'x') + "\n");
  const std::future<void> end = std::async(std::launch::async, [&writer] { writer.reset(); });
  EXPECT_EQ(end.wait_for(std::chrono::seconds(30)), std::future_status::ready);
  close(reader);  // Ends a write that waits.
  end.wait();
  close(terminal);
}

TEST(LineWriterTest, ADescriptorThatIsBrokenStopsNobody) {
  const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  LineWriter writer(fd, 1000);
  for (int i = 0; i < 100; ++i) writer.Write("x\n");
  writer.Flush(std::chrono::seconds(60));
  close(fd);
}

}  // namespace
}  // namespace attend::server
