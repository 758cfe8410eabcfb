// A file's bytes, mapped instead of read.
#ifndef ATTEND_FORMATS_FILES_MAPPED_FILE_H_
#define ATTEND_FORMATS_FILES_MAPPED_FILE_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace attend::formats {

// Owns a private, read-only mapping of a file. Replacing the file (a rename) leaves the mapping as it is, but
// truncating it ends the process with SIGBUS when a byte that is gone is read. So a mapping is kept no longer than it
// takes to load a layer, and files are replaced, not rewritten.
//
// Immutable; may be shared between threads.
class MappedFile {
 public:
  // Errors: NOT_FOUND, with the system's reason, when it cannot be opened; INVALID_ARGUMENT when it is no regular file.
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(const std::string& path);

  // Maps the first `size` bytes of an open file; they stay readable when the file is closed, renamed or removed. Null,
  // with errno set, when the system refuses. REQUIRES: the file has as many bytes and is not made shorter.
  static std::shared_ptr<const MappedFile> Map(int fd, std::size_t size);

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::string_view bytes() const { return {static_cast<const char*>(data_), size_}; }

 private:
  MappedFile(void* data, std::size_t size) : data_(data), size_(size) {}

  void* data_;  // Null for an empty file.
  std::size_t size_;
};

// The whole of a small text file (a config.json), which may be rewritten meanwhile. Errors: as MappedFile::Open, and
// NOT_FOUND when it cannot be read; INVALID_ARGUMENT when it is larger than `max_bytes`. Every message names the file.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, std::size_t max_bytes);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_FILES_MAPPED_FILE_H_
