// Who calls from a peer, of the peers that called lately and showed nothing else.
//
// What is remembered follows from the peer's text alone (CredentialsOfPeer) and from principals that no file changes,
// so that it is right also for whoever calls from the same address and port later. Whether the caller may call the
// method is asked each time. At most 64 peers, of a few hundred bytes each with their accounts.
//
// Thread-compatible.
#ifndef ATTEND_SERVER_RPC_KNOWN_PEERS_H_
#define ATTEND_SERVER_RPC_KNOWN_PEERS_H_

#include <array>
#include <cstddef>
#include <functional>
#include <string>
#include <utility>

#include "server/identity/principal.h"

namespace attend::server {

struct KnownPeer {
  std::string peer;  // As gRPC writes it: `ipv4:127.0.0.1:40000`.
  PrincipalRef principal;
  AccountRef account;
};

class KnownPeers {
 public:
  // Null when it is not known. Valid until Add.
  const KnownPeer* Find(const std::string& peer) const {
    const KnownPeer& known = places_[PlaceOf(peer)];
    return known.principal != nullptr && known.peer == peer ? &known : nullptr;
  }
  // Forgets another, where that has its place. REQUIRES: known.principal is not null.
  void Add(KnownPeer known) {
    KnownPeer& place = places_[PlaceOf(known.peer)];
    place = std::move(known);
  }

 private:
  static constexpr std::size_t kPlaces = 64;

  static std::size_t PlaceOf(const std::string& peer) { return std::hash<std::string>()(peer) % kPlaces; }

  std::array<KnownPeer, kPlaces> places_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_KNOWN_PEERS_H_
