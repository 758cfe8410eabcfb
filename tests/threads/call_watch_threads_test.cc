// Calls that make no progress end while others are served, connections come and go, and the server stops: nothing is
// lost and nothing is raced for.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tests/threads/busy_engine.h"

namespace attend::testing {
namespace {

using fake_grpc::CallStart;
using fake_grpc::CallUnary;
using fake_grpc::ClientCall;
using fake_grpc::Ending;

// A StreamAttendRequest whose field 3, `attend`, is so short a request.
const char kStreamMessage[] = "\x1a\x05small";

int ConnectTo(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address{.sin_family = AF_INET,
                            .sin_port = htons(static_cast<in_port_t>(port)),
                            .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
  EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  return fd;
}

constexpr std::chrono::milliseconds kTimeout(200);

// Sends on a stream whose answers it does not read. Where threads stand still for as long as the timeout, the server
// takes it for a silent one: then it tries again.
void IsCancelledUnread(int port) {
  const absl::Time end = absl::Now() + absl::Minutes(1);
  grpc::StatusCode code = grpc::StatusCode::DEADLINE_EXCEEDED;
  while (code == grpc::StatusCode::DEADLINE_EXCEEDED && absl::Now() < end) {
    ClientCall unread(port, {.method = kStream});
    while (unread.Send(kStreamMessage)) {
    }
    code = unread.Finish().status.error_code();
  }
  EXPECT_EQ(code, grpc::StatusCode::CANCELLED);
}

// Sends and reads at once. False when that took as long as the timeout all the same: then it may have been ended.
bool IsServedInTime(int port, const char* request) {
  const auto start = std::chrono::steady_clock::now();
  const grpc::Status status = CallUnary(port, {.method = kUnary}, request).ending.status;
  if (std::chrono::steady_clock::now() - start >= kTimeout) return false;
  EXPECT_TRUE(status.ok()) << status.error_message();
  return true;
}

TEST(CallWatchThreadsTest, SilentAndUnreadCallsEndWhileOthersAreServed) {
  BusyEngine engine({.calls = {.max_calls = 1000,
                               .first_message_timeout = absl::FromChrono(kTimeout),
                               .stalled_answer_timeout = absl::FromChrono(kTimeout),
                               .min_bytes_per_second = 1 << 20}});
  InThreads(8, [&](int i) {
    if (i < 2) {
      ClientCall silent(engine.port(), {.method = i == 0 ? kUnary : kStream});
      EXPECT_EQ(silent.Finish().status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
    } else if (i < 4) {
      IsCancelledUnread(engine.port());
    } else {
      const absl::Time end = absl::Now() + absl::Seconds(3), too_late = absl::Now() + absl::Minutes(1);
      bool served = false;
      while (absl::Now() < (served ? end : too_late)) {
        served = IsServedInTime(engine.port(), i % 2 == 0 ? "small" : "large") || served;
      }
      EXPECT_TRUE(served);
    }
  });
}

TEST(CallWatchThreadsTest, BeyondTheCapTheLongestSilentGivesWay) {
  BusyEngine engine({.calls = {.max_calls = 4}});
  InThreads(8, [&](int i) {
    // Six times ten silent calls stay below the 64 beyond the cap that may wait for their status, however slowly the
    // server's thread runs: further ones would be cancelled and hear no reason.
    for (int round = 0; round < 10; ++round) {
      if (i < 6) {
        ClientCall silent(engine.port(), {.method = kUnary});
        if (round % 2 == 0) silent.Cancel();
        if (round % 2 != 0 && i != 0) std::this_thread::yield();
      } else {
        const Ending ending = CallUnary(engine.port(), {.method = kUnary}, "large").ending;
        if (!ending.status.ok()) {
          EXPECT_EQ(Reason(ending.status), "TOO_MANY_CALLS") << ending.status.error_code();
        }
      }
    }
  });
}

// Calls go to the two pollers in turn, as the fake has it.
class TwoPollers : public ::testing::Test {
 protected:
  // One that sends nothing as yet.
  std::unique_ptr<ClientCall> Silent(int calls_then) {
    auto call = std::make_unique<ClientCall>(engine_.port(), CallStart{.method = kUnary});
    WaitForCalls(calls_then);
    return call;
  }
  grpc::Status Answered() const { return CallUnary(engine_.port(), {.method = kUnary}, "small").ending.status; }
  void WaitForCalls(int count) {
    while (engine_.engine().calls_in_flight() != count) std::this_thread::yield();
  }

  BusyEngine engine_{{.polling_threads = 2, .calls = {.max_calls = 3}}};
};

TEST_F(TwoPollers, SilentCallsOfOneGiveWayToThoseOfTheOther) {
  std::vector<std::unique_ptr<ClientCall>> silent;
  for (int i = 1; i <= 3; ++i) {
    EXPECT_TRUE(Answered().ok());
    WaitForCalls(i - 1);
    silent.push_back(Silent(i));
  }
  const grpc::Status status = Answered();
  EXPECT_TRUE(status.ok()) << Reason(status);
  EXPECT_EQ(Reason(silent[0]->Finish().status), "TOO_MANY_CALLS");
  silent[1]->Send("small");
  silent[1]->HalfClose();
  EXPECT_TRUE(silent[1]->Finish().status.ok());
}

TEST_F(TwoPollers, TheOneThatHasWaitedLongestGivesWayWhoseverItIs) {
  const auto longest = Silent(1), young = Silent(2), youngest = Silent(3);
  EXPECT_EQ(Answered().error_code(), grpc::StatusCode::OK) << "with that of the first";
  EXPECT_EQ(Reason(longest->Finish().status), "TOO_MANY_CALLS");
  for (const auto& call : {&young, &youngest}) {
    (*call)->Send("small");
    (*call)->HalfClose();
    EXPECT_TRUE((*call)->Finish().status.ok());
  }
}

TEST(CallWatchThreadsTest, ConnectionsComeWhileTheServerStops) {
  for (int round = 0; round < 5; ++round) {
    BusyEngine engine({});
    const int port = engine.port();
    std::thread drain([&] { engine.Drain(absl::Seconds(60)); });
    InThreads(4, [&](int) {
      for (int i = 0; i < 20; ++i) {
        engine.engine().open_connections();
        CallUnary(port, {.method = kUnary}, "small");
      }
    });
    drain.join();
  }
}

TEST(CallWatchThreadsTest, OpenConnectionsAreCountedWhileOthersCome) {
  BusyEngine engine({});
  InThreads(4, [&](int) {
    for (int i = 0; i < 50; ++i) {
      const int fd = ConnectTo(engine.port());
      EXPECT_GE(engine.engine().open_connections(), 0);
      close(fd);
    }
  });
}

}  // namespace
}  // namespace attend::testing
