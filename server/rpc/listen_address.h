// From a --listen address to the addresses that gRPC binds, and in words why one cannot be bound.
//
// gRPC 1.51 says in its log alone why it cannot bind, and of a name's addresses binds those it can, without a word.
#ifndef ATTEND_SERVER_RPC_LISTEN_ADDRESS_H_
#define ATTEND_SERVER_RPC_LISTEN_ADDRESS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace attend::server {

// The numeric `host:port` addresses behind `listen`, which is `host:port`, all of them free at the moment.
//
// A name stands for all of its addresses, `localhost` for those of both families, with the same port on each, also
// where the system chooses it (port 0). An address of a family that this machine does not have is left out. Wildcards
// (0.0.0.0, [::]) are returned as they are: gRPC takes either for all addresses of both families.
//
// Errors: UNAVAILABLE with one sentence that names `listen` and says what to do: the name does not resolve, the address
// is not this machine's, is in use, or needs a privilege. Blocks on name resolution; may be called concurrently.
absl::StatusOr<std::vector<std::string>> ResolveListenAddress(const std::string& listen);

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_LISTEN_ADDRESS_H_
