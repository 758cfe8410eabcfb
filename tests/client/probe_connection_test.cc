// Why a probe has no connection: the system's own reason, whatever else the process meets.
#include "client/probe/probe_connection.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "absl/time/clock.h"
#include "tests/support/without_descriptors.h"

namespace attend::client {
namespace {

SocketAddress Loopback(in_port_t port) {
  const sockaddr_in ipv4{.sin_family = AF_INET, .sin_port = port, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
  SocketAddress address{.size = sizeof ipv4};
  std::memcpy(&address.storage, &ipv4, sizeof ipv4);
  return address;
}

// A listener whose queue of connections is full: another one is on its way for as long as anybody waits.
class FullListener {
 public:
  FullListener() {
    sockaddr_in own = {.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof own;
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&own), size), 0);
    EXPECT_EQ(listen(fd_, 0), 0);
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&own), &size), 0);
    port_ = own.sin_port;
    for (int& client : clients_) {
      client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      const int result = connect(client, reinterpret_cast<const sockaddr*>(&own), size);
      EXPECT_TRUE(result == 0 || errno == EINPROGRESS);
    }
  }
  FullListener(const FullListener&) = delete;
  FullListener& operator=(const FullListener&) = delete;
  ~FullListener() {
    for (const int client : clients_) close(client);
    close(fd_);
  }
  SocketAddress address() const { return Loopback(port_); }

 private:
  const int fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  std::array<int, 4> clients_{};
  in_port_t port_ = 0;
};

TEST(ProbeConnectionTest, WithoutDescriptorsThatIsTheReason) {
  bool ok = true;
  ProbeResult failure;
  {
    const attend::testing::WithoutDescriptors none;
    const ProbeConnection connection(Loopback(htons(1)), absl::Now() + absl::Seconds(1));
    ok = connection.ok();
    failure = connection.Failure();
  }
  EXPECT_FALSE(ok);
  EXPECT_EQ(failure.finding, Finding::kUnreachable);
  EXPECT_EQ(failure.detail, std::strerror(EMFILE));
}

// As ::1 is on a machine without IPv6: what the name's other addresses tell is reported before this.
TEST(ProbeConnectionTest, AFamilyThatThisMachineLacksTellsLeast) {
  SocketAddress address = Loopback(htons(1));
  address.storage.ss_family = 60;  // Nobody's.
  const ProbeConnection connection(address, absl::Now() + absl::Seconds(1));
  ASSERT_FALSE(connection.ok());
  EXPECT_LT(connection.Failure().finding, Finding::kRefused);
  EXPECT_EQ(connection.Failure().detail, std::strerror(EAFNOSUPPORT));
}

TEST(ProbeConnectionTest, AnInterruptedConnectionGoesOnAndTimesOut) {
  const FullListener listener;
  struct sigaction wake {};
  struct sigaction usual {};
  wake.sa_handler = [](int /*number*/) {};
  ASSERT_EQ(sigaction(SIGALRM, &wake, &usual), 0);
  const itimerval soon{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_usec = 50'000}};
  ASSERT_EQ(setitimer(ITIMER_REAL, &soon, nullptr), 0);
  const ProbeConnection connection(listener.address(), absl::Now() + absl::Milliseconds(300));
  sigaction(SIGALRM, &usual, nullptr);
  ASSERT_FALSE(connection.ok());
  EXPECT_EQ(connection.Failure().finding, Finding::kUnreachable);
  EXPECT_EQ(connection.Failure().detail, std::strerror(ETIMEDOUT));
}

}  // namespace
}  // namespace attend::client
