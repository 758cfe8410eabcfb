// A folder whose files are reached through it and never around it.
//
// Every file is opened relative to the folder's descriptor with openat2(2) under RESOLVE_BENEATH and
// RESOLVE_NO_SYMLINKS: whatever the name, and whatever somebody with access to the folder has put there, no file
// outside of it is touched. Needs Linux 5.6; on older kernels nothing is opened at all.
#ifndef ATTEND_SERVER_LAYER_STORE_FOLDER_H_
#define ATTEND_SERVER_LAYER_STORE_FOLDER_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attend::server {

// Owns one; -1 is none.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor();

  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

// What a failed system call means to the caller of a method: RESOURCE_EXHAUSTED with reason DISK_FULL for a full disk,
// quota or file size limit, FAILED_PRECONDITION with reason DATA_DIR_READ_ONLY where writing is not permitted, else
// INTERNAL with reason STORAGE_FAILED. `what` starts the sentence: `cannot write the layer`.
absl::Status StorageError(int error_number, std::string_view what);

// The same for a file that cannot be read at the start, where no caller is told what it can do: FAILED_PRECONDITION.
absl::Status ReadError(int error_number, std::string_view what);

// Thread-safe, as the file system is.
class Folder {
 public:
  Folder() = default;

  // Opens the folder `path`, and makes it, for this user alone, when only its last part is missing; one that was made
  // survives a loss of power. Errors: those of StorageError, and FAILED_PRECONDITION when the kernel has no openat2.
  static absl::StatusOr<Folder> Open(const std::string& path);

  // The folder `name` in this one, made when missing and wanted, as by Open. Errors: NOT_FOUND when missing and not
  // wanted; those of StorageError.
  absl::StatusOr<Folder> OpenFolder(const std::string& name, bool make = true) const;

  // Keeps other processes from locking this folder until this object's end. Errors: FAILED_PRECONDITION when one has.
  absl::Status Lock() const;

  // `flags` are those of open(2). New files are for this user alone. Errors: those of ReadError for O_RDONLY, else
  // those of StorageError.
  absl::StatusOr<FileDescriptor> OpenFile(const std::string& name, int flags) const;

  // Whether `name` is a regular file, without opening it: no folder, pipe or symbolic link. Errors: those of ReadError.
  absl::StatusOr<bool> IsRegularFile(const std::string& name) const;

  // Replaces what is there. REQUIRES: neither name contains `/`.
  absl::Status Rename(const std::string& from, const Folder& folder, const std::string& to) const;

  // A file that is not there is removed already. REQUIRES: no `/` in `name`.
  absl::Status Remove(const std::string& name) const;

  // The size of the file `name` in bytes; 0 when there is none. Does not follow a symbolic link.
  std::int64_t SizeOf(const std::string& name) const;

  // Makes renaming and removing survive a loss of power.
  absl::Status Sync() const;

  // The names of all that is in it, in no order.
  absl::StatusOr<std::vector<std::string>> List() const;

 private:
  explicit Folder(FileDescriptor fd) : fd_(std::move(fd)) {}

  FileDescriptor fd_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYER_STORE_FOLDER_H_
