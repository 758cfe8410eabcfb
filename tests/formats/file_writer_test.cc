// What a process of one's own shows of WriteFile; tests/client/cli_files_test.py has the rest.
#include "formats/files/file_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"

namespace attend {
namespace {

std::string ReadAll(int fd) {
  std::string text;
  char piece[4096];
  for (ssize_t size = 0; (size = read(fd, piece, sizeof piece)) > 0;)
    text.append(piece, static_cast<std::size_t>(size));
  return text;
}

TEST(WriteFileTest, WaitsForTheReaderOfAFullPipeThatIsNotBlocking) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  ASSERT_EQ(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
  std::string expected;
  for (const std::string page(4096, 'a'); write(ends[1], page.data(), page.size()) > 0;) expected += page;
  const std::string contents(1 << 20, 'b');
  std::string got;
  std::thread reader([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // The writer finds the pipe full.
    got = ReadAll(ends[0]);
  });
  const absl::Status written = WriteFile(absl::StrCat("/proc/self/fd/", ends[1]), contents);
  close(ends[1]);
  reader.join();
  close(ends[0]);
  EXPECT_TRUE(written.ok()) << written;
  EXPECT_TRUE(got == expected + contents) << got.size() << " bytes";
}

}  // namespace
}  // namespace attend
