#include "server/rpc/handed_calls.h"

#include <algorithm>
#include <chrono>

#include "server/rpc/open_connections.h"

namespace attend::server {
namespace {

// What a caller has sent before it learns that its call has ended.
constexpr std::chrono::seconds kStillOnItsWay(2);

}  // namespace

void HandedCalls::Start() {
  const MutexLock lock(mu_);
  by_peer_.clear();
  counting_.store(true, std::memory_order_relaxed);
}

void HandedCalls::Stop() {
  const MutexLock lock(mu_);
  counting_.store(false, std::memory_order_relaxed);
  by_peer_ = ByPeer();
}

void HandedCalls::AddCall(const std::string& peer, bool is_receiving) {
  const std::string key = CanonicalPeer(peer);
  const MutexLock lock(mu_);
  if (!counting()) return;
  Handed& handed = by_peer_[key];
  ++handed.calls;
  handed.receiving += is_receiving ? 1 : 0;
}

void HandedCalls::AddMessage(const std::string& peer, std::int64_t bytes, bool is_last) {
  const std::string key = CanonicalPeer(peer);
  const MutexLock lock(mu_);
  if (!counting()) return;
  Handed& handed = by_peer_[key];
  ++handed.messages;
  handed.bytes += bytes;
  if (is_last) handed.receiving = std::max<std::int64_t>(handed.receiving - 1, 0);
}

void HandedCalls::NoteEnded(const std::string& peer, Clock::time_point now) {
  const std::string key = CanonicalPeer(peer);
  const MutexLock lock(mu_);
  ended_[next_ended_] = {key, now};
  next_ended_ = (next_ended_ + 1) % ended_.size();
}

void HandedCalls::AddEnded(Clock::time_point now) {
  const MutexLock lock(mu_);
  for (const Ended& ended : ended_) {
    if (ended.peer.empty() || now - ended.time > kStillOnItsWay) continue;
    Handed& handed = by_peer_[ended.peer];
    ++handed.calls;
    ++handed.receiving;
  }
}

HandedCalls::ByPeer HandedCalls::Counted() const {
  const MutexLock lock(mu_);
  return by_peer_;
}

}  // namespace attend::server
