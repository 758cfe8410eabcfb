#include "server/rpc/listen_address.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace attend::server {
namespace {

constexpr char kLockName[] = ".attend-listen.lock";
constexpr absl::Duration kLockPatience = absl::Seconds(5);
constexpr absl::Duration kLockPause = absl::Milliseconds(5);
constexpr std::size_t kMaxPathBytes = sizeof(sockaddr_un::sun_path) - 1;

absl::Status CannotListen(const std::string& path, const std::string& why) {
  return absl::UnavailableError(absl::StrCat("cannot listen on unix:", path, " (--listen): ", why));
}

bool IsSameFile(const struct stat& a, const struct stat& b) { return a.st_dev == b.st_dev && a.st_ino == b.st_ino; }

// Held while a path is looked at and changed. The file is gone when nobody holds it.
class FolderLock {
 public:
  explicit FolderLock(int folder) : folder_(folder) {
    const absl::Time deadline = absl::Now() + kLockPatience;
    while (!Try() && absl::Now() < deadline) absl::SleepFor(kLockPause);
  }
  ~FolderLock() {
    if (fd_ < 0) return;
    unlinkat(folder_, kLockName, 0);
    close(fd_);
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  bool held() const { return fd_ >= 0; }
  int error() const { return error_; }

 private:
  // Whether there is nothing to wait for. Another user's file cannot be opened, but goes away as any other.
  bool Try() {
    const int fd = openat(folder_, kLockName, O_CREAT | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0600);
    error_ = fd < 0 ? errno : Lock(fd);
    if (fd < 0) return error_ != EACCES && error_ != EPERM;  // Others do not pass with time.
    if (error_ == 0) {
      fd_ = fd;
    } else {
      close(fd);
    }
    return error_ != EWOULDBLOCK;
  }

  // 0 when `fd` is locked and still has the name; EWOULDBLOCK when another server has the lock, or had it and removed
  // the file; else errno, as of a file system without locks.
  int Lock(int fd) const {
    struct stat locked {
    }, named{};
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 || fstat(fd, &locked) != 0) return errno;
    if (fstatat(folder_, kLockName, &named, AT_SYMLINK_NOFOLLOW) != 0) return errno == ENOENT ? EWOULDBLOCK : errno;
    return IsSameFile(locked, named) ? 0 : EWOULDBLOCK;
  }

  const int folder_;
  int fd_ = -1;
  int error_ = 0;
};

// 0 when somebody listens there; else errno.
int Connect(const std::string& path) {
  sockaddr_un address{.sun_family = AF_UNIX};
  path.copy(address.sun_path, kMaxPathBytes);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  const int error = connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
  close(fd);
  return error == EAGAIN ? 0 : error;  // Its queue of connections is full.
}

// A name that no other server of this folder has, in whichever container its process runs.
std::string NewName() {
  absl::BitGen random;
  return absl::StrCat(".attend-listen-", absl::Hex(absl::Uniform<std::uint64_t>(random), absl::kZeroPad16));
}

}  // namespace

UnixSocket::UnixSocket(std::string path, int folder, std::string name, std::string own_name)
    : path_(std::move(path)), folder_(folder), name_(std::move(name)), own_name_(std::move(own_name)) {}

UnixSocket::~UnixSocket() {
  Withdraw();
  unlinkat(folder_, own_name_.c_str(), 0);
  close(folder_);
}

absl::StatusOr<std::unique_ptr<UnixSocket>> UnixSocket::Reserve(const std::string& path) {
  if (path.size() > kMaxPathBytes) {
    return CannotListen(path, absl::StrCat("the path of a socket has at most ", kMaxPathBytes, " bytes"));
  }
  const std::size_t slash = path.rfind('/');
  const std::string name = path.substr(slash + 1);
  const std::string folder_path = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  if (name.empty() || name == "." || name == "..") return CannotListen(path, "it is a folder; name a file in it");
  const int folder = open(folder_path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) {
    return CannotListen(path, absl::StrCat("its folder cannot be used: ", std::strerror(errno)));
  }
  std::unique_ptr<UnixSocket> socket(new UnixSocket(path, folder, name, NewName()));
  if (absl::Status free = socket->CheckFree(); !free.ok()) return free;
  return socket;
}

// Short, however long the folder's own path is.
std::string UnixSocket::NearPath(const std::string& name) const {
  return absl::StrCat("/proc/self/fd/", folder_, "/", name);
}

absl::StatusOr<ListenSocket> UnixSocket::Listen() const {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return CannotListen(path_, std::strerror(errno));
  ListenSocket listener(fd, absl::StrCat("unix:", path_), /*port=*/0);
  sockaddr_un address{.sun_family = AF_UNIX};
  NearPath(own_name_).copy(address.sun_path, kMaxPathBytes);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 || listen(fd, SOMAXCONN) != 0) {
    return CannotListen(path_, std::strerror(errno));
  }
  return listener;
}

absl::Status UnixSocket::CheckFree() const {
  struct stat entry {};
  if (fstatat(folder_, name_.c_str(), &entry, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno == ENOENT ? absl::OkStatus() : CannotListen(path_, std::strerror(errno));
  }
  if (!S_ISSOCK(entry.st_mode)) {
    return CannotListen(path_, "there is a file that is no socket; remove it, or choose another path");
  }
  const std::string near = name_.size() < kMaxPathBytes - 32 ? NearPath(name_) : path_;
  switch (const int error = Connect(near)) {
    case 0: return CannotListen(path_, "another server listens there; end that server, or choose another path");
    case ECONNREFUSED:
    case ENOENT: return absl::OkStatus();  // Left by a server that has ended.
    default:
      return CannotListen(path_, absl::StrCat("there is a socket, and whether a server listens on it cannot be seen: ",
                                              std::strerror(error), "; remove it, or choose another path"));
  }
}

absl::Status UnixSocket::Publish() {
  const FolderLock lock(folder_);
  if (!lock.held()) {
    return CannotListen(path_, absl::StrCat("its folder cannot be locked: ", std::strerror(lock.error())));
  }
  absl::Status status = CheckFree();
  const int own = status.ok() ? openat(folder_, own_name_.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC) : -1;
  if (status.ok() && (own < 0 || renameat(folder_, own_name_.c_str(), folder_, name_.c_str()) != 0)) {
    status = CannotListen(path_, std::strerror(errno));
    if (own >= 0) close(own);
  }
  if (status.ok()) own_ = own;
  return status;
}

void UnixSocket::Withdraw() {
  if (own_ < 0) return;
  const FolderLock lock(folder_);
  struct stat own {
  }, named{};
  if (lock.held() && fstat(own_, &own) == 0 && fstatat(folder_, name_.c_str(), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
      IsSameFile(own, named)) {
    unlinkat(folder_, name_.c_str(), 0);
  }
  close(std::exchange(own_, -1));
}

}  // namespace attend::server
