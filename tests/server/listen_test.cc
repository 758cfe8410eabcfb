// Where a server listens: Unix sockets that have an owner, ports that are taken, names with several addresses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/rpc/listen_address.h"
#include "tests/support/lookup_failure.h"
#include "tests/support/raw_call.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_server.h"
#include "tests/support/without_descriptors.h"

namespace attend::testing {
namespace {

using ::testing::HasSubstr;

constexpr char kInfo[] = "/attend.v1.AttentionService/GetServerInfo";
using Started = absl::StatusOr<std::unique_ptr<server::AttentionServer>>;

// A Unix socket's file whose listener has ended, or still lives in `fd`.
int BindSocket(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{.sun_family = AF_UNIX};
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  EXPECT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(listen(fd, 1), 0);
  return fd;
}

ino_t InodeOf(const std::string& path) {
  struct stat entry {};
  return lstat(path.c_str(), &entry) == 0 ? entry.st_ino : 0;
}

class UnixListenTest : public ::testing::Test {
 protected:
  Started Start(const std::string& path) {
    server::ServerConfig config = TestConfig();
    config.threads = 1;
    config.listen = {"unix:" + path};
    return server::AttentionServer::Start(config, log_);
  }
  static bool IsServed(const std::string& path) {
    return CallRaw(MakeTestChannel("unix:" + path), kInfo, "").status.ok();
  }
  std::size_t NumFiles() const {
    const std::filesystem::directory_iterator files(folder_.path());
    return static_cast<std::size_t>(std::distance(begin(files), end(files)));
  }

  server::Log log_{{.format = server::LogFormat::kText, .level = server::ParseLogLevel("off")}};
  const TemporaryFolder folder_;
  const std::string path_ = folder_.path() + "/s";
};

TEST_F(UnixListenTest, ASocketInUseIsRefusedAndItsServerStaysReachable) {
  const Started first = Start(path_);
  ASSERT_TRUE(first.ok()) << first.status();
  const Started second = Start(path_);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("cannot listen on unix:" + path_));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("another server listens there"));
  EXPECT_TRUE(IsServed(path_));
  EXPECT_EQ(NumFiles(), 1u) << "a lock or a temporary socket is left";
}

TEST_F(UnixListenTest, ASocketThatADeadServerLeftIsTakenOver) {
  close(BindSocket(path_));
  const Started server = Start(path_);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_TRUE(IsServed(path_));
}

TEST_F(UnixListenTest, AFullQueueOfConnectionsIsALiveSocket) {
  const int listener = BindSocket(path_);
  std::vector<int> clients;
  sockaddr_un address{.sun_family = AF_UNIX};
  path_.copy(address.sun_path, sizeof address.sun_path - 1);
  for (int error = 0; error == 0;) {
    clients.push_back(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
    error = connect(clients.back(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  }
  EXPECT_FALSE(Start(path_).ok());
  for (const int client : clients) close(client);
  close(listener);
}

TEST_F(UnixListenTest, AFileThatIsNoSocketIsNeverRemoved) {
  folder_.Write("s", "precious");
  const std::string link = folder_.path() + "/link";
  const std::string dead = folder_.path() + "/dead";
  close(BindSocket(dead));
  std::filesystem::create_symlink(dead, link);
  for (const std::string& path : {path_, link, folder_.path() + "/"}) {
    const Started server = Start(path);
    ASSERT_FALSE(server.ok()) << path;
    EXPECT_THAT(std::string(server.status().message()), HasSubstr("cannot listen on unix:" + path));
  }
  EXPECT_EQ(std::filesystem::file_size(path_), 8u);
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(NumFiles(), 3u);
}

TEST_F(UnixListenTest, AServerRemovesItsOwnSocketAndNoOther) {
  Started first = Start(path_);
  ASSERT_TRUE(first.ok()) << first.status();
  unlink(path_.c_str());
  Started second = Start(path_);
  ASSERT_TRUE(second.ok()) << second.status();
  const ino_t theirs = InodeOf(path_);
  first->reset();
  EXPECT_EQ(InodeOf(path_), theirs) << "the path of the second server is gone";
  EXPECT_TRUE(IsServed(path_));
  second->reset();
  EXPECT_EQ(NumFiles(), 0u) << "a server that ends removes its path";
}

TEST_F(UnixListenTest, OfServersThatStartAtOnceOneServes) {
  for (int round = 0; round < 3; ++round) {
    close(BindSocket(path_));
    std::vector<Started> servers(4);
    std::vector<std::thread> threads;
    for (Started& server : servers) threads.emplace_back([this, &server] { server = Start(path_); });
    for (std::thread& thread : threads) thread.join();
    int running = 0;
    for (const Started& server : servers) running += server.ok() ? 1 : 0;
    EXPECT_EQ(running, 1);
    EXPECT_TRUE(IsServed(path_));
    EXPECT_EQ(NumFiles(), 1u);
    servers.clear();
    EXPECT_EQ(NumFiles(), 0u);
  }
}

// From here on flock(2) fails in this thread, as on a file system without locks. False where the kernel does not do it.
bool RefuseLocks() {
  sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_flock, 0, 1),
                        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOLCK),
                        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog program{.len = std::size(code), .filter = code};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

TEST_F(UnixListenTest, AFolderWithoutLocksIsSaidSoAtOnce) {
  bool refused = false;
  absl::Status published;
  std::thread([&] {
    const auto socket = server::UnixSocket::Reserve(path_);
    refused = socket.ok() && (*socket)->Listen().ok() && RefuseLocks();
    if (refused) published = (*socket)->Publish();
  }).join();
  if (!refused) GTEST_SKIP() << "this kernel cannot refuse a lock";
  EXPECT_THAT(std::string(published.message()), HasSubstr("its folder cannot be locked: No locks available"));
}

TEST_F(UnixListenTest, ThePathOfASocketHasAnEnd) {
  std::string folder = folder_.path() + "/" + std::string(40, 'd');
  std::filesystem::create_directory(folder);
  const std::string longest = folder + "/" + std::string(107 - folder.size() - 1, 's');
  Started fits = Start(longest);
  ASSERT_TRUE(fits.ok()) << fits.status();
  EXPECT_TRUE(IsServed(longest));
  const Started beyond = Start(longest + "s");
  ASSERT_FALSE(beyond.ok());
  EXPECT_THAT(std::string(beyond.status().message()), HasSubstr("at most 107 bytes"));
}

TEST(ListenAddressTest, LocalhostIsBothFamiliesOnOnePort) {
  const auto addresses = server::ListenOn("localhost:0");
  ASSERT_TRUE(addresses.ok()) << addresses.status();
  ASSERT_THAT(addresses->front().address(), HasSubstr("127.0.0.1:"));
  const std::string port = addresses->front().address().substr(addresses->front().address().rfind(':'));
  EXPECT_NE(port, ":0");
  const int ipv6 = socket(AF_INET6, SOCK_STREAM, 0);
  sockaddr_in6 loopback{.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  const bool has_ipv6 = bind(ipv6, reinterpret_cast<const sockaddr*>(&loopback), sizeof loopback) == 0;
  close(ipv6);
  if (has_ipv6) {
    ASSERT_EQ(addresses->size(), 2u);
    EXPECT_EQ(addresses->back().address(), "[::1]" + port);
  }
}

TEST(ListenAddressTest, AServerOnLocalhostAnswersOnEachOfItsAddresses) {
  server::ServerConfig config = TestConfig();
  config.listen = {"localhost:0"};
  server::Log log({.format = server::LogFormat::kText, .level = server::ParseLogLevel("off")});
  const Started server = server::AttentionServer::Start(config, log);
  ASSERT_TRUE(server.ok()) << server.status();
  const std::vector<std::string> addresses = absl::StrSplit((*server)->addresses().front(), ", ");
  for (const std::string& address : addresses) {
    EXPECT_THAT(address, ::testing::EndsWith(absl::StrCat(":", (*server)->ports().front())));
    EXPECT_TRUE(CallRaw(MakeTestChannel(address), kInfo, "").status.ok()) << address;
  }
}

TEST(ListenAddressTest, APortInUseIsOneSentenceThatNamesItsAddress) {
  const TestServer first;
  const std::string port = first.address().substr(first.address().rfind(':'));
  for (const std::string& listen : {first.address(), "localhost" + port, "0.0.0.0" + port}) {
    const auto addresses = server::ListenOn(listen);
    ASSERT_FALSE(addresses.ok()) << listen;
    EXPECT_EQ(std::string(addresses.status().message()),
              "cannot listen on " + listen +
                  " (--listen): another process uses this port; end that process, or choose another port (0: any free "
                  "one)");
  }
}

TEST(ListenAddressTest, ANameThatTheSystemCannotLookUpHasTheSystemsReason) {
  absl::Status status;
  std::string reason;
  {
    const WithoutDescriptors none;
    status = server::ListenOn("no.such.name.invalid:0").status();
    reason = LookupFailure("no.such.name.invalid");
  }
  EXPECT_THAT(std::string(status.message()), HasSubstr("'no.such.name.invalid' has no address: " + reason));
}

TEST(ListenAddressTest, AnAddressThatIsNotThisMachinesIsSaidSo) {
  const auto foreign = server::ListenOn("192.0.2.1:0");  // Reserved for documentation (RFC 5737).
  ASSERT_FALSE(foreign.ok());
  EXPECT_THAT(std::string(foreign.status().message()), HasSubstr("this machine has no such address"));
  const auto unknown = server::ListenOn("no.such.name.invalid:0");
  ASSERT_FALSE(unknown.ok());
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("'no.such.name.invalid' has no address"));
}

}  // namespace
}  // namespace attend::testing
