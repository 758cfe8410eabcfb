// Guards the first connection of a process from an errno that is not its own. A program of its own: Abseil reads
// each of its files once in a process.
#include <gtest/gtest.h>

#include <cerrno>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/lib/client.h"

namespace attend::client {
namespace {

TEST(ConnectErrno, AThreadThatWaitsForAMutexAfterConnectOpensNoFile) {
  const absl::StatusOr<Client> client = Client::Connect({.endpoints = {"127.0.0.1:1"}});
  ASSERT_TRUE(client.ok()) << client.status();
  absl::Mutex mu;
  int first = 0;
  int second = 0;
  const auto wait = [&mu](int* error) {
    errno = 0;
    mu.Lock();
    *error = errno;
    mu.Unlock();
  };
  mu.Lock();
  std::thread one(wait, &first);
  std::thread other(wait, &second);
  absl::SleepFor(absl::Milliseconds(100));  // Both queue meanwhile; when they do not, there is nothing to see.
  mu.Unlock();
  one.join();
  other.join();
  EXPECT_NE(first, ENOENT);
  EXPECT_NE(second, ENOENT);
}

}  // namespace
}  // namespace attend::client
