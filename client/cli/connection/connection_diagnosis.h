// After a call that reached no server: why, and what to do about it.
#ifndef ATTEND_CLIENT_CLI_CONNECTION_CONNECTION_DIAGNOSIS_H_
#define ATTEND_CLIENT_CLI_CONNECTION_CONNECTION_DIAGNOSIS_H_

#include <string>

#include "client/cli/connection/connection_flags.h"

namespace attend::client {

// Why a call reached no server, in a sentence for each endpoint that says what to do. Looks at each and tells what is
// in the way there; of several addresses behind one name, what tells most. Empty when a server answers as it should, or
// when nothing is known. Takes a few seconds at most, besides what the system takes to resolve names. For after a
// failed call alone: it makes connections.
std::string DiagnoseConnection(const ConnectionFlags& flags);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_CONNECTION_CONNECTION_DIAGNOSIS_H_
