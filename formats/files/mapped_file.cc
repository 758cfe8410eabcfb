#include "formats/files/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace attend::formats {

namespace {

absl::Status Failed(std::string_view what, const std::string& path, int error) {
  return absl::NotFoundError(absl::StrCat("cannot ", std::string(what), " ", path, ": ", std::strerror(error)));
}

// A regular file that is open for as long as this lives.
struct OpenFile {
  ~OpenFile() {
    if (fd >= 0) close(fd);
  }
  int fd = -1;
  std::size_t bytes = 0;
};

absl::Status OpenRegular(const std::string& path, OpenFile* file) {
  // Without O_NONBLOCK, opening a pipe waits for somebody to write to it.
  file->fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file->fd < 0) return Failed("open", path, errno);
  struct stat status {};
  if (fstat(file->fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  file->bytes = static_cast<std::size_t>(status.st_size);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::string& path) {
  OpenFile file;
  if (absl::Status opened = OpenRegular(path, &file); !opened.ok()) return opened;
  std::shared_ptr<const MappedFile> mapped = Map(file.fd, file.bytes);
  if (mapped == nullptr) return Failed("map", path, errno);
  return mapped;
}

std::shared_ptr<const MappedFile> MappedFile::Map(int fd, std::size_t size) {
  void* const data = size == 0 ? nullptr : mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) return nullptr;
  return std::shared_ptr<const MappedFile>(new MappedFile(data, size));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(data_, size_);
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path, std::size_t max_bytes) {
  OpenFile file;
  if (absl::Status opened = OpenRegular(path, &file); !opened.ok()) return opened;
  // To the end and not to the size, which may change meanwhile and is 0 for files of /proc and /sys.
  std::string text;
  for (char piece[4096]; text.size() <= max_bytes;) {
    const ssize_t count = read(file.fd, piece, sizeof piece);
    if (count == 0) return text;
    if (count < 0 && errno != EINTR) return Failed("read", path, errno);
    if (count > 0) text.append(piece, static_cast<std::size_t>(count));
  }
  return absl::InvalidArgumentError(absl::StrCat(path, " is too large; at most ", max_bytes, " bytes are read"));
}

}  // namespace attend::formats
