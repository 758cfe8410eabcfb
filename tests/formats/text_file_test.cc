// Small text files: read to their end, never beyond a bound, and nothing else is taken for one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>

#include "formats/files/mapped_file.h"
#include "tests/support/temporary_folder.h"

namespace attend::formats {
namespace {

using ::testing::HasSubstr;

// A file that shrinks while it is read is one whose size is not that of its bytes, as those of /proc are always.
TEST(ReadTextFile, ReadsToTheEndWhateverTheSizeSays) {
  const absl::StatusOr<std::string> text = ReadTextFile("/proc/self/status", 1 << 20);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(*text, HasSubstr("\nPid:"));
  EXPECT_EQ(text->back(), '\n');
}

TEST(ReadTextFile, TakesAsManyBytesAsItMayAndNotOneMore) {
  const attend::testing::TemporaryFolder folder;
  for (const std::size_t limit : {0, 1, 4095, 4096, 4097, 100000}) {
    const std::string fits(limit, 'x');
    EXPECT_EQ(ReadTextFile(folder.Write("fits", fits), limit).value(), fits);
    const std::string path = folder.Write("large", fits + "x");
    const absl::Status status = ReadTextFile(path, limit).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path + " is too large; at most " + std::to_string(limit)));
  }
}

TEST(ReadTextFile, RefusesWhatIsNoRegularFileWithoutWaiting) {
  const attend::testing::TemporaryFolder folder;
  const std::string pipe = folder.path() + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const std::string& path : {folder.path(), pipe, std::string("/dev/zero")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ReadTextFile(path, 10).status())) << path;
  }
  EXPECT_TRUE(absl::IsNotFound(ReadTextFile(folder.path() + "/none", 10).status()));
  const absl::Status unreadable = ReadTextFile("/proc/self/mem", 10).status();
  EXPECT_TRUE(absl::IsNotFound(unreadable)) << unreadable;
  EXPECT_THAT(std::string(unreadable.message()), HasSubstr("cannot read /proc/self/mem: Input/output error"));
}

}  // namespace
}  // namespace attend::formats
