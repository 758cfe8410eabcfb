// One server of the fake gRPC, and how clients find it.
#ifndef ATTEND_TESTS_FAKE_GRPC_SERVER_STATE_H_
#define ATTEND_TESTS_FAKE_GRPC_SERVER_STATE_H_

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>

#include "tests/fake_grpc/call_state.h"

namespace attend::fake_grpc {

// Thread-safe.
class ServerState {
 public:
  using Time = std::chrono::system_clock::time_point;

  ServerState();
  ~ServerState();
  ServerState(const ServerState&) = delete;
  ServerState& operator=(const ServerState&) = delete;

  // The server that listens on `port` of 127.0.0.1; null when there is none (any more). Connects when it was not asked
  // for this port before, and waits until the connection has been accepted.
  static std::shared_ptr<ServerState> Find(int port);
  // A connection on `port` has been handed to `server`.
  static void Listen(int port, const std::shared_ptr<ServerState>& server);

  // The server wants one more call.
  void Request(CallState::Requested requested);
  // A client calls. Null when the server has stopped.
  std::shared_ptr<CallState> Connect(CallStart start);

  void CancelAll();
  void Shutdown(Time deadline);

 private:
  using CallPtr = std::shared_ptr<CallState>;

  void RunTimer();
  void Forget(std::int64_t number);

  std::mutex mu_;
  std::condition_variable changed_;
  std::map<CallState::Queue*, std::deque<CallState::Requested>> requested_;
  std::deque<CallPtr> waiting_;                      // For a request.
  std::unordered_map<std::int64_t, CallPtr> calls_;  // By their numbers, those that have not ended.
  std::multimap<Time, std::int64_t> deadlines_;
  std::int64_t next_number_ = 0;
  bool shutdown_ = false;
  bool destroyed_ = false;
  std::thread timer_;  // Cancels calls whose deadline has passed, as gRPC does on a thread of its own.
};

}  // namespace attend::fake_grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_SERVER_STATE_H_
