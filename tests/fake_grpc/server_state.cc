#include "tests/fake_grpc/server_state.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "tests/fake_grpc/edges.h"

namespace attend::fake_grpc {
namespace {

// What stands for the network: which server listens where.
struct Ports {
  std::mutex mu;
  std::map<int, std::weak_ptr<ServerState>> servers;
};

Ports& AllPorts() {
  static Ports ports;
  return ports;
}

grpc::Status Stopped() { return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is shut down"); }

}  // namespace

void ServerState::Listen(int port, const std::shared_ptr<ServerState>& server) {
  Ports& ports = AllPorts();
  const HiddenLock lock(ports.mu);
  ports.servers[port] = server;
}

std::shared_ptr<ServerState> ServerState::Find(int port) {
  Ports& ports = AllPorts();
  const auto known = [&ports, port]() -> std::shared_ptr<ServerState> {
    const HiddenLock lock(ports.mu);
    const auto found = ports.servers.find(port);
    return found == ports.servers.end() ? nullptr : found->second.lock();
  };
  std::shared_ptr<ServerState> server = known();
  if (server != nullptr) return server;
  const int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address{.sin_family = AF_INET,
                            .sin_port = htons(static_cast<in_port_t>(port)),
                            .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
  if (connect(connection, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    // A server that ends meanwhile closes the connection.
    char none = 0;
    (void)recv(connection, &none, 1, 0);
    server = known();
  }
  close(connection);
  return server;
}

ServerState::ServerState() : timer_([this] { RunTimer(); }) {}

ServerState::~ServerState() {
  {
    const HiddenLock lock(mu_);
    destroyed_ = true;
    changed_.notify_all();
  }
  timer_.join();
}

void ServerState::Request(CallState::Requested requested) {
  CallPtr call;
  bool refused = false;
  {
    const HiddenLock lock(mu_);
    refused = shutdown_;
    if (!shutdown_ && !waiting_.empty()) {
      call = std::move(waiting_.front());
      waiting_.pop_front();
    } else if (!shutdown_) {
      requested_[requested.queue].push_back(std::move(requested));
      return;
    }
  }
  if (refused) return requested.queue->End(std::move(requested.operation), false);
  After(call.get());
  CallState::Arrive(call, std::move(requested));
}

std::shared_ptr<CallState> ServerState::Connect(CallStart start) {
  std::int64_t number = 0;
  {
    const HiddenLock lock(mu_);
    number = next_number_++;
  }
  const Time deadline = start.deadline;
  auto call =
      std::make_shared<CallState>(std::move(start), /*done_first=*/number % 2 == 0, [this, number] { Forget(number); });
  Before(call.get());
  std::vector<CallState::Requested> found;
  CallPtr waiting = call, kept = call;
  {
    const HiddenLock lock(mu_);
    if (shutdown_) return nullptr;
    calls_.emplace(number, std::move(kept));
    if (deadline != Time::max()) deadlines_.emplace(deadline, number);
    // Calls go round over the queues that want one.
    auto queue = requested_.begin();
    if (!requested_.empty()) std::advance(queue, number % static_cast<std::int64_t>(requested_.size()));
    for (std::size_t i = 0; i < requested_.size() && queue->second.empty(); ++i) {
      if (++queue == requested_.end()) queue = requested_.begin();
    }
    if (!requested_.empty() && !queue->second.empty()) {
      found.push_back(std::move(queue->second.front()));
      queue->second.pop_front();
    } else {
      waiting_.push_back(std::move(waiting));
    }
    changed_.notify_all();
  }
  if (!found.empty()) CallState::Arrive(call, std::move(found.front()));
  return call;
}

void ServerState::Forget(std::int64_t number) {
  CallPtr call;  // Perhaps destroyed here.
  {
    const HiddenLock lock(mu_);
    const auto found = calls_.find(number);
    if (found == calls_.end()) return;
    call = std::move(found->second);
    calls_.erase(found);
    changed_.notify_all();
  }
  After(call.get());
}

void ServerState::CancelAll() {
  std::vector<CallPtr> calls;
  {
    const HiddenLock lock(mu_);
    for (const auto& [number, call] : calls_) calls.push_back(call);
  }
  for (const CallPtr& call : calls) {
    After(call.get());
    call->Cancel(Stopped());
  }
}

void ServerState::Shutdown(Time deadline) {
  std::map<CallState::Queue*, std::deque<CallState::Requested>> unused;
  std::deque<CallPtr> never_served;
  {
    const HiddenLock lock(mu_);
    shutdown_ = true;
    unused.swap(requested_);
    never_served.swap(waiting_);
  }
  for (auto& [queue, requests] : unused) {
    for (CallState::Requested& request : requests) queue->End(std::move(request.operation), false);
  }
  for (const CallPtr& call : never_served) {
    After(call.get());
    call->Cancel(Stopped());
  }
  {
    HiddenLock lock(mu_);
    while (!calls_.empty() && std::chrono::system_clock::now() < deadline) changed_.wait_until(lock, deadline);
  }
  CancelAll();
  HiddenLock lock(mu_);
  while (!calls_.empty()) changed_.wait(lock);
}

void ServerState::RunTimer() {
  for (;;) {
    CallPtr late;
    {
      HiddenLock lock(mu_);
      if (destroyed_) return;
      const Time now = std::chrono::system_clock::now();
      if (deadlines_.empty()) {
        changed_.wait(lock);
      } else if (const auto first = deadlines_.begin(); first->first > now) {
        changed_.wait_until(lock, Time(first->first));
      } else {
        const auto found = calls_.find(first->second);
        if (found != calls_.end()) late = found->second;
        deadlines_.erase(first);
      }
    }
    if (late == nullptr) continue;
    After(late.get());
    late->Cancel(grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "Deadline Exceeded"));
  }
}

}  // namespace attend::fake_grpc
