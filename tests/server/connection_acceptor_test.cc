// The accept loop: out of descriptors, beyond the cap, and how live connections are counted.
#include "server/rpc/connection_acceptor.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "tests/server/engine_fixture.h"
#include "tests/support/without_descriptors.h"

namespace attend::testing {
namespace {

using server::ConnectionAcceptor;
using server::ListenSocket;
using server::OpenConnections;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Keeps what it is handed, as gRPC does.
class Keeper final : public ConnectionAcceptor::Receiver {
 public:
  void HandleNewConnection(NewConnectionParameters* connection) override {
    const MutexLock lock(mu_);
    fds_.push_back(connection->fd);
  }
  std::vector<int> fds() const {
    const MutexLock lock(mu_);
    return fds_;
  }
  ~Keeper() override {
    for (const int fd : fds()) close(fd);
  }

 private:
  mutable Mutex mu_;
  std::vector<int> fds_;
};

class AcceptorTest : public ::testing::Test {
 protected:
  void Start(int max_connections) {
    std::vector<ListenSocket> listeners = *server::ListenOn("127.0.0.1:0");
    port_ = listeners.front().port();
    acceptor_ = *ConnectionAcceptor::Start(std::move(listeners), keeper_, {.max_connections = max_connections});
  }
  static int Socket() { return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); }
  int Connect(int fd) const {
    const sockaddr_in address{.sin_family = AF_INET,
                              .sin_port = htons(static_cast<in_port_t>(port_)),
                              .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return fd;
  }
  bool WaitForConnections(std::size_t count) const {
    return WaitFor([&] { return keeper_.fds().size() == count; });
  }

  Keeper keeper_;
  std::unique_ptr<ConnectionAcceptor> acceptor_;
  int port_ = 0;
};

TEST_F(AcceptorTest, ConnectionsAreHandedOverAsGrpcWantsThem) {
  Start(10);
  const int client = Connect(Socket());
  ASSERT_TRUE(WaitForConnections(1));
  const int fd = keeper_.fds().front();
  int no_delay = 0;
  socklen_t size = sizeof no_delay;
  EXPECT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &no_delay, &size), 0);
  EXPECT_NE(no_delay, 0);
  EXPECT_NE(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  close(client);
}

TEST_F(AcceptorTest, WithoutDescriptorsItWaitsAndGoesOn) {
  Start(1000);
  const int client = Socket();
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  std::vector<int> taken;
  const rlimit low{.rlim_cur = 100, .rlim_max = before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &low);
  for (int fd = dup(client); fd >= 0; fd = dup(client)) taken.push_back(fd);
  Connect(client);
  absl::SleepFor(absl::Milliseconds(300));
  EXPECT_TRUE(keeper_.fds().empty());
  for (const int fd : taken) close(fd);
  EXPECT_TRUE(WaitForConnections(1)) << "accepting has ended for good";
  setrlimit(RLIMIT_NOFILE, &before);
  close(client);
}

TEST_F(AcceptorTest, WhatCouldNotBeStoppedIsNotStarted) {
  std::vector<ListenSocket> listeners = *server::ListenOn("127.0.0.1:0");
  absl::Status status;
  {
    const WithoutDescriptors none;
    status = ConnectionAcceptor::Start(std::move(listeners), keeper_, {.max_connections = 2}).status();
  }
  EXPECT_EQ(status.message(), "cannot accept connections: Too many open files");
}

TEST_F(AcceptorTest, BeyondTheCapConnectionsAreClosedAtOnceUntilOneEnds) {
  Start(2);
  std::vector<int> clients = {Connect(Socket()), Connect(Socket())};
  ASSERT_TRUE(WaitForConnections(2));
  clients.push_back(Connect(Socket()));
  char byte = 0;
  EXPECT_LE(recv(clients.back(), &byte, 1, 0), 0) << "the third connection was kept";
  EXPECT_EQ(acceptor_->refused_connections(), 1);
  EXPECT_EQ(acceptor_->open_connections(), 2);
  close(keeper_.fds().front());
  EXPECT_EQ(acceptor_->open_connections(), 1);
  clients.push_back(Connect(Socket()));
  EXPECT_TRUE(WaitForConnections(3));
  for (const int client : clients) close(client);
}

TEST_F(AcceptorTest, AfterStopNobodyIsAccepted) {
  Start(2);
  acceptor_->Stop();
  const int client = Socket();
  const sockaddr_in address{.sin_family = AF_INET,
                            .sin_port = htons(static_cast<in_port_t>(port_)),
                            .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
  EXPECT_NE(connect(client, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  close(client);
}

class Pairs {
 public:
  // One end, for the server.
  int Open() {
    std::array<int, 2> ends{};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    ends_.push_back(ends);
    return ends[0];
  }
  // Which connections their peers have heard the end of.
  std::vector<std::size_t> Ended() const {
    std::vector<std::size_t> ended;
    for (std::size_t i = 0; i < ends_.size(); ++i) {
      char byte = 0;
      if (recv(ends_[i][1], &byte, 1, MSG_DONTWAIT) == 0) ended.push_back(i);
    }
    return ended;
  }
  ~Pairs() {
    for (const auto& ends : ends_) {
      for (const int end : ends) close(end);
    }
  }

 private:
  std::vector<std::array<int, 2>> ends_;
};

// Reads the first connection to its end before it returns, as gRPC reads one that never stops sending.
class Reader final : public ConnectionAcceptor::Receiver {
 public:
  void HandleNewConnection(NewConnectionParameters* connection) override {
    if (handed_over.fetch_add(1) == 0) {
      pollfd readable{.fd = connection->fd, .events = POLLIN, .revents = 0};
      std::array<char, 4096> bytes{};
      while (poll(&readable, 1, -1) == 1 && read(connection->fd, bytes.data(), bytes.size()) > 0) {
      }
    }
    close(connection->fd);
  }
  std::atomic<int> handed_over{0};
};

TEST_F(AcceptorTest, AConnectionThatKeepsTheThreadIsShutDown) {
  Reader reader;
  std::vector<ListenSocket> listeners = *server::ListenOn("127.0.0.1:0");
  port_ = listeners.front().port();
  const auto acceptor = *ConnectionAcceptor::Start(
      std::move(listeners), reader, {.max_connections = 10, .hand_over_patience = std::chrono::milliseconds(200)});
  const int keeping = Connect(Socket());
  ASSERT_TRUE(WaitFor([&] { return reader.handed_over.load() == 1; }));
  const int other = Connect(Socket());
  EXPECT_TRUE(WaitFor([&] { return reader.handed_over.load() == 2; }));
  EXPECT_EQ(acceptor->refused_connections(), 1);
  close(keeping);
  close(other);
}

TEST(OpenConnectionsTest, OnePeerHasAllUntilAnotherWantsUpToAQuarter) {
  OpenConnections open;
  Pairs pairs;
  const auto add = [&](const std::string& peer) {
    const bool room = open.HasRoomFor(peer, 8);
    if (room) open.Add(pairs.Open(), peer);
    return room;
  };
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(add("a")) << i;
  EXPECT_FALSE(add("a"));
  EXPECT_THAT(pairs.Ended(), IsEmpty());
  EXPECT_TRUE(add("b"));
  EXPECT_TRUE(add("b"));
  EXPECT_THAT(pairs.Ended(), ElementsAre(6, 7)) << "the newest of a's";
  EXPECT_FALSE(add("b")) << "b has its quarter";
  EXPECT_TRUE(add("c"));
  EXPECT_THAT(pairs.Ended(), ElementsAre(5, 6, 7));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(add("")) << "a proxy's have no share: " << i;
  EXPECT_FALSE(add("d")) << "nobody has more than a quarter but the proxy";
  EXPECT_EQ(open.Count(), 8);
}

// A peer can have itself refused again and again, and each time all descriptors would be looked at.
TEST(OpenConnectionsTest, AHundredRefusalsCostFewLooksAtAllDescriptors) {
  static constexpr int kMost = 500;
  OpenConnections open;
  std::vector<int> sockets;
  for (int i = 0; i < kMost; ++i) {
    sockets.push_back(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    open.Add(sockets.back(), "a");
  }
  // The shortest of some times: others may have had the processor meanwhile.
  const auto took = [](const auto& work) {
    absl::Duration shortest = absl::InfiniteDuration();
    for (int round = 0; round < 5; ++round) {
      const absl::Time start = absl::Now();
      work();
      shortest = std::min(shortest, absl::Now() - start);
    }
    return shortest;
  };
  const absl::Duration look = took([&open] { EXPECT_EQ(open.Count(), kMost); });
  const absl::Duration refusals = took([&open] {
    for (int i = 0; i < 100; ++i) EXPECT_FALSE(open.HasRoomFor("a", kMost));
  });
  EXPECT_LT(refusals, 50 * look);
  for (const int fd : sockets) close(fd);
}

TEST(OpenConnectionsTest, AClosedConnectionLeavesItsPlaceWhetherItWasNoticedOrNot) {
  OpenConnections open;
  Pairs pairs;
  for (int i = 0; i < 4; ++i) open.Add(pairs.Open(), "a");
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  open.Add(fd, "b");
  close(fd);
  ASSERT_EQ(pairs.Open(), fd) << "the system gave the number again";
  open.Add(fd, "c");
  EXPECT_EQ(open.Count(), 5);
  EXPECT_TRUE(open.HasRoomFor("b", 5)) << "b has none any more, and gets a's newest";
  EXPECT_THAT(pairs.Ended(), ElementsAre(3));
}

// Two ends of a TCP connection.
class TcpPair {
 public:
  TcpPair() {
    const server::ListenSocket listener = std::move((*server::ListenOn("127.0.0.1:0")).front());
    const sockaddr_in address{.sin_family = AF_INET,
                              .sin_port = htons(static_cast<in_port_t>(listener.port())),
                              .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(connect(client, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    pollfd ready{.fd = listener.fd(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&ready, 1, -1), 1);
    server = accept(listener.fd(), nullptr, nullptr);
    EXPECT_GE(server, 0);
  }
  ~TcpPair() {
    close(client);
    if (server >= 0) close(server);
  }
  int client = -1;
  int server = -1;
};

TEST(OpenConnectionsTest, TrafficIsWhatWasReadAndWhatWasTaken) {
  OpenConnections open;
  const TcpPair tcp;
  Pairs unix_pairs;
  open.Add(unix_pairs.Open(), "unix");
  const std::int64_t number = open.Add(tcp.server, "127.0.0.1");
  ASSERT_EQ(send(tcp.client, "twelve bytes", 12, 0), 12);
  std::array<char, 16> bytes{};
  ASSERT_EQ(recv(tcp.server, bytes.data(), 5, MSG_WAITALL), 5);
  ASSERT_EQ(send(tcp.server, "abc", 3, 0), 3);
  ASSERT_EQ(recv(tcp.client, bytes.data(), 3, MSG_WAITALL), 3);
  ASSERT_TRUE(WaitFor([&] {
    const std::vector<server::ConnectionTraffic> traffic = open.Traffic();
    return traffic.size() == 1 && traffic[0].sent >= 3;
  })) << "a Unix socket counts none";
  const server::ConnectionTraffic traffic = open.Traffic()[0];
  EXPECT_EQ(traffic.number, number);
  EXPECT_EQ(traffic.read, 5) << "seven wait in the kernel";
  EXPECT_FALSE(traffic.is_of_many);
  sockaddr_in own{};
  socklen_t size = sizeof own;
  ASSERT_EQ(getsockname(tcp.client, reinterpret_cast<sockaddr*>(&own), &size), 0);
  EXPECT_EQ(traffic.peer, "ipv4:127.0.0.1:" + std::to_string(ntohs(own.sin_port)));
}

TEST(OpenConnectionsTest, WhatAnAbortedConnectionHadReceivedIsGone) {
  OpenConnections open;
  TcpPair tcp;
  const std::int64_t number = open.Add(tcp.server, "");
  ASSERT_EQ(send(tcp.client, "never read", 10, 0), 10);
  std::array<char, 16> bytes{};
  ASSERT_EQ(recv(tcp.server, bytes.data(), bytes.size(), MSG_PEEK), 10);
  EXPECT_TRUE(open.Traffic()[0].is_of_many);
  EXPECT_TRUE(open.Abort(number));
  EXPECT_EQ(recv(tcp.server, bytes.data(), bytes.size(), MSG_DONTWAIT), 0);
  EXPECT_FALSE(open.Abort(number + 1));
  close(std::exchange(tcp.server, -1));
  EXPECT_FALSE(open.Abort(number));
  EXPECT_EQ(recv(tcp.client, bytes.data(), bytes.size(), 0), 0);
  EXPECT_TRUE(WaitFor([&] { return send(tcp.client, "x", 1, MSG_NOSIGNAL) < 0; })) << "its peer is told";
}

TEST(OpenConnectionsTest, PeersHaveOneSpelling) {
  EXPECT_EQ(server::CanonicalPeer("ipv4:127.0.0.1:40000"), "ipv4:127.0.0.1:40000");
  EXPECT_EQ(server::CanonicalPeer("ipv6:%5B::1%5D:40000"), "ipv6:[::1]:40000");
  EXPECT_EQ(server::CanonicalPeer("ipv6:%5Bfe80::1%252%5D:1"), "ipv6:[fe80::1%2]:1");
}

TEST(OpenConnectionsTest, ANumberThatIsUsedAgainIsAnotherConnection) {
  OpenConnections open;
  const int first = socket(AF_INET, SOCK_STREAM, 0);
  open.Add(first, "a");
  EXPECT_EQ(open.Count(), 1);
  close(first);
  const int other = socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_EQ(other, first) << "the system gave the number again";
  EXPECT_EQ(open.Count(), 0) << "a socket that nobody added counts";
  open.Add(other, "a");
  EXPECT_EQ(open.Count(), 1);
  close(other);
  const int file = open64("/dev/null", O_RDONLY);
  EXPECT_EQ(open.Count(), 0);
  close(file);
}

}  // namespace
}  // namespace attend::testing
