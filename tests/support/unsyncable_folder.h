// A folder that an fsync(2) of this process fails for, as one of a disk with a fault.
#ifndef ATTEND_TESTS_SUPPORT_UNSYNCABLE_FOLDER_H_
#define ATTEND_TESTS_SUPPORT_UNSYNCABLE_FOLDER_H_

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

namespace attend::testing {

// From its construction to its end the process's one descriptor of the folder is that of a pipe, which nobody can sync:
// so nothing else can be done through it either. REQUIRES: the folder is open, once.
class UnsyncableFolder {
 public:
  explicit UnsyncableFolder(const std::filesystem::path& folder) : fd_(Find(std::filesystem::canonical(folder))) {
    int ends[2] = {};
    saved_ = dup(fd_);
    if (fd_ < 0 || saved_ < 0 || pipe(ends) != 0 || dup2(ends[0], fd_) < 0) std::abort();
    close(ends[0]);
    close(ends[1]);
  }
  UnsyncableFolder(const UnsyncableFolder&) = delete;
  UnsyncableFolder& operator=(const UnsyncableFolder&) = delete;
  ~UnsyncableFolder() {
    dup2(saved_, fd_);
    close(saved_);
  }

 private:
  static int Find(const std::filesystem::path& folder) {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;  // The descriptor of this search, and others.
      if (std::filesystem::read_symlink(entry.path(), gone) == folder) return std::stoi(entry.path().filename());
    }
    return -1;
  }

  const int fd_;
  int saved_ = -1;
};

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_UNSYNCABLE_FOLDER_H_
