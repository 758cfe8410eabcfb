#include "server/layer_store/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/base/protocol.h"

namespace attend::server {
namespace {

constexpr mode_t kFolderMode = 0700;
constexpr mode_t kFileMode = 0600;

// glibc has no wrapper of it.
int OpenBeneath(int folder, const std::string& name, int flags) {
  open_how how{};
  how.flags = static_cast<__u64>(flags | O_CLOEXEC);
  how.mode = (flags & O_CREAT) != 0 ? kFileMode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  if (name.find('\0') != std::string::npos) {
    errno = EINVAL;
    return -1;
  }
  return static_cast<int>(syscall(SYS_openat2, folder, name.c_str(), &how, sizeof how));
}

std::string Sentence(std::string_view what, int error_number) {
  return absl::StrCat(std::string(what), ": ", std::strerror(error_number));
}

// The folder has just been made: its name is to survive a loss of power, as what is put into it does. Where the folder
// above may not be read, nobody can see to that.
absl::Status SyncNameOf(const FileDescriptor& folder) {
  const FileDescriptor above(openat(folder.get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (above.get() < 0 || fsync(above.get()) == 0) return absl::OkStatus();
  return StorageError(errno, "cannot write the folder above");
}

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) close(fd_);
}

absl::Status StorageError(int error_number, std::string_view what) {
  const std::string sentence = Sentence(what, error_number);
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return WithDetails(
          absl::ResourceExhaustedError(absl::StrCat(sentence,
                                                    "; the server's --data-dir has no room for it: delete layers, or "
                                                    "ask the operator for more room")),
          {.reason = reason::kDiskFull, .field = "", .metadata = {}});
    case EROFS:
    case EACCES:
    case EPERM:
      return WithDetails(
          absl::FailedPreconditionError(absl::StrCat(sentence,
                                                     "; the server's --data-dir does not permit it, so that layers can "
                                                     "be called there and neither created nor deleted")),
          {.reason = reason::kDataDirReadOnly, .field = "", .metadata = {}});
    default:
      return WithDetails(absl::InternalError(sentence),
                         {.reason = reason::kStorageFailed, .field = "", .metadata = {}});
  }
}

absl::Status ReadError(int error_number, std::string_view what) {
  return absl::FailedPreconditionError(Sentence(what, error_number));
}

absl::StatusOr<Folder> Folder::Open(const std::string& path) {
  const bool made = mkdir(path.c_str(), kFolderMode) == 0;
  if (!made && errno != EEXIST && errno != EROFS) {
    const int error = errno;
    return StorageError(error, absl::StrCat("cannot make the folder '", path, "'"));
  }
  FileDescriptor fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const int error = errno;
  if (fd.get() < 0) return StorageError(error, absl::StrCat("cannot open the folder '", path, "'"));
  if (const FileDescriptor probe(OpenBeneath(fd.get(), ".", O_PATH)); probe.get() < 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        Sentence("openat2", errno), "; keeping files needs Linux 5.6 and a sandbox that permits this system call"));
  }
  if (absl::Status synced = made ? SyncNameOf(fd) : absl::OkStatus(); !synced.ok()) return synced;
  return Folder(std::move(fd));
}

absl::StatusOr<Folder> Folder::OpenFolder(const std::string& name, bool make) const {
  const bool made = make && mkdirat(fd_.get(), name.c_str(), kFolderMode) == 0;
  if (make && !made && errno != EEXIST && errno != EROFS && errno != EACCES) {
    const int error = errno;
    return StorageError(error, absl::StrCat("cannot make the folder '", name, "'"));
  }
  FileDescriptor fd(OpenBeneath(fd_.get(), name, O_RDONLY | O_DIRECTORY));
  const int error = errno;
  if (fd.get() < 0 && error == ENOENT && !make) return absl::NotFoundError(absl::StrCat("no folder '", name, "'"));
  if (fd.get() < 0) return StorageError(error, absl::StrCat("cannot open the folder '", name, "'"));
  if (absl::Status synced = made ? Sync() : absl::OkStatus(); !synced.ok()) return synced;
  return Folder(std::move(fd));
}

absl::Status Folder::Lock() const {
  if (flock(fd_.get(), LOCK_EX | LOCK_NB) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(errno == EWOULDBLOCK ? "another server uses it"
                                                            : Sentence("it cannot be locked", errno));
}

absl::StatusOr<FileDescriptor> Folder::OpenFile(const std::string& name, int flags) const {
  FileDescriptor fd(OpenBeneath(fd_.get(), name, flags));
  if (fd.get() >= 0) return fd;
  constexpr const char* kWhat = "cannot open the file";
  return (flags & O_ACCMODE) == O_RDONLY ? ReadError(errno, kWhat) : StorageError(errno, kWhat);
}

absl::StatusOr<bool> Folder::IsRegularFile(const std::string& name) const {
  struct stat info {};
  if (fstatat(fd_.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
    return ReadError(errno, "cannot look at the file");
  return S_ISREG(info.st_mode);
}

absl::Status Folder::Rename(const std::string& from, const Folder& folder, const std::string& to) const {
  if (renameat(fd_.get(), from.c_str(), folder.fd_.get(), to.c_str()) == 0) return absl::OkStatus();
  return StorageError(errno, "cannot rename the file");
}

absl::Status Folder::Remove(const std::string& name) const {
  if (unlinkat(fd_.get(), name.c_str(), 0) == 0 || errno == ENOENT) return absl::OkStatus();
  return StorageError(errno, "cannot remove the file");
}

std::int64_t Folder::SizeOf(const std::string& name) const {
  struct stat info {};
  return fstatat(fd_.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 ? info.st_size : 0;
}

absl::Status Folder::Sync() const {
  return fsync(fd_.get()) == 0 ? absl::OkStatus() : StorageError(errno, "cannot write the folder");
}

absl::StatusOr<std::vector<std::string>> Folder::List() const {
  // A descriptor of its own, because closedir closes it and its position is that of all duplicates.
  const int fd = OpenBeneath(fd_.get(), ".", O_RDONLY | O_DIRECTORY);
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(fd < 0 ? nullptr : fdopendir(fd), closedir);
  if (stream == nullptr) {
    const absl::Status error = StorageError(errno, "cannot list the folder");
    if (fd >= 0) close(fd);
    return error;
  }
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* const entry = readdir(stream.get());  // NOLINT(concurrency-mt-unsafe): the stream is ours alone.
    if (entry == nullptr && errno != 0) return StorageError(errno, "cannot list the folder");
    if (entry == nullptr) return names;
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
}

}  // namespace attend::server
