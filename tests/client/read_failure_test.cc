// A file or a pipe that cannot be read is not one that has ended.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <istream>
#include <sstream>
#include <stdexcept>
#include <streambuf>
#include <string>
#include <utility>

#include "client/io/csv.h"
#include "client/io/npy.h"
#include "client/io/stream.h"

namespace attend::client {
namespace {

using ::testing::HasSubstr;

// Nothing is mapped at a process's address 0: reading fails at the first byte.
constexpr char kUnreadable[] = "/proc/self/mem";

// Holds `text`, and fails behind it as std::filebuf does on a disk with a fault.
class FaultyBuffer final : public std::streambuf {
 public:
  explicit FaultyBuffer(std::string text) : text_(std::move(text)) {
    setg(text_.data(), text_.data(), text_.data() + text_.size());
  }

 private:
  int_type underflow() override { throw std::runtime_error("Input/output error"); }

  std::string text_;
};

TEST(ReadFailure, RowsThatCannotBeReadAreNotLeftOut) {
  for (const char* text : {"1,2\n3,4\n", "1,2\n3,4\n5,", ""}) {
    FaultyBuffer buffer(text);
    std::istream in(&buffer);
    const absl::StatusOr<Tensor> tensor = ReadCsv(in);
    ASSERT_FALSE(tensor.ok()) << text;
    EXPECT_THAT(std::string(tensor.status().message()), HasSubstr("reading failed after line"));
  }
  EXPECT_EQ(ReadCsvFile(kUnreadable).status().message(), "/proc/self/mem: reading failed after line 0");
}

TEST(ReadFailure, IsNotAnEndThatCameEarly) {
  FaultyBuffer buffer(std::string("\x93NUMPY", 6));
  std::istream faulty(&buffer);
  EXPECT_EQ(ReadNpy(faulty).status().message(), "reading the .npy header failed");
  std::istringstream cut(std::string("\x93NUMPY", 6));
  EXPECT_EQ(ReadNpy(cut).status().message(), "the .npy header is incomplete: expected 8 bytes, found 6");
}

TEST(ReadFailure, OfASmallFileIsNotAnEmptyFile) {
  const absl::StatusOr<std::string> contents = ReadSmallFile(kUnreadable, 100);
  ASSERT_FALSE(contents.ok());
  EXPECT_EQ(contents.status().message(), "reading /proc/self/mem failed");
}

// A program that shares the pipe may have made it non-blocking.
TEST(ReadFailure, OfStandardInputThatIsNotBlockingIsNotItsEnd) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
  const int saved = dup(STDIN_FILENO);
  ASSERT_EQ(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
  ASSERT_EQ(write(ends[1], "half", 4), 4);
  std::string text;
  std::getline(std::cin, text);
  EXPECT_EQ(text, "half");
  EXPECT_TRUE(ReadFailed(std::cin));
  std::clearerr(stdin);
  std::cin.clear();
  close(ends[1]);
  std::getline(std::cin, text);
  EXPECT_FALSE(ReadFailed(std::cin)) << "now it has ended";
  dup2(saved, STDIN_FILENO);
  close(saved);
  close(ends[0]);
}

}  // namespace
}  // namespace attend::client
