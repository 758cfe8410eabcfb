#include "formats/files/file_writer.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace attend {
namespace {

constexpr mode_t kNewFileMode = 0666;  // Less the process's umask.
constexpr mode_t kModeBits = 07777;
constexpr int kMaxLinks = 40;  // Linux's own bound.

// Owns a file descriptor, or none.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }

  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }
  // Some file systems say only here that they are full. 0, or errno.
  int Close() { return close(std::exchange(fd_, -1)) == 0 ? 0 : errno; }

 private:
  int fd_;
};

// Errors name the file that the caller named, also when a temporary one failed.
absl::Status WriteError(const std::string& path, int error, const char* doing = "write") {
  return absl::UnknownError(absl::StrCat("cannot ", doing, " ", path, ": ", std::strerror(error)));
}

std::string FolderOf(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string NameOf(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// The link's text, taken from the folder that the link is in.
std::optional<std::string> ReadLink(const std::string& path) {
  char text[PATH_MAX];
  const ssize_t size = readlink(path.c_str(), text, sizeof text);
  if (size <= 0) return std::nullopt;
  std::string target(text, static_cast<std::size_t>(size));
  return target.front() == '/' ? target : absl::StrCat(FolderOf(path), "/", target);
}

// Links in /proc lead to open files, which may have no name, or another than the link's text says.
bool IsInProc(const std::string& path) {
  struct statfs system {};
  return statfs(FolderOf(path).c_str(), &system) == 0 && system.f_type == PROC_SUPER_MAGIC;
}

// `path` behind all symbolic links, but for those in /proc. Errors: none; what cannot be followed fails when opened.
std::string Follow(std::string path) {
  for (int links = 0; links < kMaxLinks; ++links) {
    struct stat entry {};
    if (lstat(path.c_str(), &entry) != 0 || !S_ISLNK(entry.st_mode) || IsInProc(path)) return path;
    std::optional<std::string> target = ReadLink(path);
    if (!target) return path;
    path = *std::move(target);
  }
  return path;
}

// Waits until `fd` takes bytes, if it is one that says EAGAIN. False, with errno, when nobody can wait.
bool WaitUntilWritable(int fd) {
  pollfd writable{.fd = fd, .events = POLLOUT, .revents = 0};
  return poll(&writable, 1, /*timeout=*/-1) >= 0 || errno == EINTR;
}

// 0, or errno. A program that shares a pipe or a terminal may have made it non-blocking.
int WriteAll(int fd, std::string_view contents) {
  while (!contents.empty()) {
    const ssize_t written = write(fd, contents.data(), contents.size());
    if (written < 0 && errno == EAGAIN && WaitUntilWritable(fd)) continue;
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    contents.remove_prefix(static_cast<std::size_t>(written));
  }
  return 0;
}

absl::Status WriteTo(Descriptor file, const std::string& path, std::string_view contents) {
  if (!file.ok()) return WriteError(path, errno);
  int error = WriteAll(file.get(), contents);
  if (error == 0) error = file.Close();
  return error == 0 ? absl::OkStatus() : WriteError(path, error);
}

// A descriptor of this process keeps its position: opened again, the file would be written from its start.
Descriptor OpenAsItIs(const std::string& target) {
  int number = 0;
  struct stat named {
  }, open_file{};
  if (IsInProc(target) && absl::SimpleAtoi(NameOf(target), &number) && stat(target.c_str(), &named) == 0 &&
      fstat(number, &open_file) == 0 && named.st_dev == open_file.st_dev && named.st_ino == open_file.st_ino) {
    return Descriptor(fcntl(number, F_DUPFD_CLOEXEC, 0));
  }
  return Descriptor(open(target.c_str(), O_WRONLY | O_APPEND | O_NOCTTY | O_CLOEXEC));
}

absl::Status WriteInPlace(Descriptor file, const std::string& path, std::string_view contents) {
  if (ftruncate(file.get(), 0) != 0) return WriteError(path, errno);
  return WriteTo(std::move(file), path, contents);
}

// A new file in a folder that has its final name at the very end, or is gone.
class NewFile {
 public:
  explicit NewFile(const std::string& target)
      : folder_(open(FolderOf(target).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)),
        error_(folder_.ok() ? 0 : errno),
        name_(NameOf(target)) {
    if (!folder_.ok()) return;
    file_ = Descriptor(openat(folder_.get(), ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, kNewFileMode));
    for (int attempt = 0; !file_.ok() && attempt < 100; ++attempt) {
      temporary_ = absl::StrCat(".attend-", getpid(), "-", attempt);
      file_ =
          Descriptor(openat(folder_.get(), temporary_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, kNewFileMode));
      if (!file_.ok() && errno != EEXIST) break;
    }
    if (file_.ok()) return;
    error_ = errno;
    temporary_.clear();
  }
  ~NewFile() { Discard(); }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  bool ok() const { return file_.ok(); }
  // Of the call that could not make it. REQUIRES: !ok().
  int error() const { return error_; }

  // Owner first: changing it clears bits of the mode. False when the file cannot be like `old`.
  bool Resemble(const struct stat& old) const {
    struct stat now {};
    if (fstat(file_.get(), &now) != 0) return false;
    const bool same_owner = now.st_uid == old.st_uid && now.st_gid == old.st_gid;
    if (!same_owner && fchown(file_.get(), old.st_uid, old.st_gid) != 0) return false;
    return fchmod(file_.get(), old.st_mode & kModeBits) == 0;
  }

  // 0, or errno.
  int Fill(std::string_view contents) const { return WriteAll(file_.get(), contents); }

  // Takes the place of what has the name, or of nothing. 0, or errno.
  int Publish() {
    for (int attempt = 0; temporary_.empty(); ++attempt) {
      // An unnamed file can take a free name at once, and no other.
      const std::string own = absl::StrCat("/proc/self/fd/", file_.get());
      const std::string name = attempt == 0 ? name_ : absl::StrCat(".attend-", getpid(), "-", attempt);
      if (linkat(AT_FDCWD, own.c_str(), folder_.get(), name.c_str(), AT_SYMLINK_FOLLOW) == 0) {
        if (attempt == 0) return file_.Close();
        temporary_ = name;
      } else if (errno != EEXIST || attempt > 100) {
        return errno;
      }
    }
    if (const int error = file_.Close(); error != 0) return error;
    if (renameat(folder_.get(), temporary_.c_str(), folder_.get(), name_.c_str()) != 0) return errno;
    temporary_.clear();
    return 0;
  }

 private:
  void Discard() {
    if (!temporary_.empty()) unlinkat(folder_.get(), temporary_.c_str(), 0);
  }

  Descriptor folder_;
  int error_;
  std::string name_;
  std::string temporary_;  // Empty: the file has no name yet, or its own.
  Descriptor file_;
};

absl::Status Replace(const std::string& target, const struct stat* old, const std::string& path,
                     std::string_view contents) {
  // A caller who may not write the file could often replace it, which its permissions do not mean to allow.
  Descriptor in_place(old == nullptr ? -1 : open(target.c_str(), O_WRONLY | O_CLOEXEC));
  if (old != nullptr && !in_place.ok()) return WriteError(path, errno);
  if (old != nullptr && old->st_nlink > 1) return WriteInPlace(std::move(in_place), path, contents);
  NewFile file(target);
  if (!file.ok() && old == nullptr) return WriteError(path, file.error(), "create");
  if (!file.ok() || (old != nullptr && !file.Resemble(*old))) return WriteInPlace(std::move(in_place), path, contents);
  int error = file.Fill(contents);
  if (error == 0) error = file.Publish();
  return error == 0 ? absl::OkStatus() : WriteError(path, error);
}

}  // namespace

absl::Status WriteFile(const std::string& path, std::string_view contents) {
  const std::string target = Follow(path);
  struct stat old {};
  if (stat(target.c_str(), &old) != 0) {
    if (errno != ENOENT) return WriteError(path, errno);
    return Replace(target, nullptr, path, contents);
  }
  if (S_ISDIR(old.st_mode)) return WriteError(path, EISDIR);
  if (!S_ISREG(old.st_mode) || IsInProc(target)) return WriteTo(OpenAsItIs(target), path, contents);
  return Replace(target, &old, path, contents);
}

}  // namespace attend
