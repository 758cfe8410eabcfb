// A folder for a test's files that is gone, with all in it, at the test's end.
#ifndef ATTEND_TESTS_SUPPORT_TEMPORARY_FOLDER_H_
#define ATTEND_TESTS_SUPPORT_TEMPORARY_FOLDER_H_

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

namespace attend::testing {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "attend-test-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) std::abort();  // No test can go on without it.
    path_ = pattern;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::string& path() const { return path_; }

  // Writes a file, in folders that are made for it, and returns its path.
  std::string Write(const std::string& name, const std::string& contents) const {
    const std::filesystem::path path = std::filesystem::path(path_) / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << contents;
    return path.string();
  }

 private:
  std::string path_;
};

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_TEMPORARY_FOLDER_H_
