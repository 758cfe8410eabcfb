// Servers of version 0.1 ignore the fields that version 0.2 brought, and answer something else than was asked for. What
// a client does about it: it notices, and returns an error in place of the answer.
//
// Internal to client/lib. The functions are pure and may be called concurrently.
#ifndef ATTEND_CLIENT_LIB_SERVER_VERSION_H_
#define ATTEND_CLIENT_LIB_SERVER_VERSION_H_

#include <google/protobuf/message.h>

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attend/v1/attention_service.grpc.pb.h"

namespace attend::client::internal {

// The path of a field that `request` sets, at any depth, and version 0.1 does not know, as in `options.scale`; empty
// when there is none.
std::string FieldUnknownTo01(const google::protobuf::Message& request);

// Whether the server lacks what came with 0.2. Asks it, until `deadline`; when it does not answer, false.
bool IsVersion01(v1::AttentionService::Stub& stub, absl::Time deadline);

// UNIMPLEMENTED: says that `field` is unknown to the server, with its version, for which it is asked, and then `what`,
// a sentence about the consequence.
absl::Status UnknownField(v1::AttentionService::Stub& stub, absl::Time deadline, const std::string& field,
                          const std::string& what);

// The status of a call that set `field`, unknown to version 0.1, and that ended with `status` and no receipt: `status`
// when a newer server refused it, else UnknownField.
absl::Status WithoutReceipt(v1::AttentionService::Stub& stub, absl::Time deadline, const std::string& field,
                            const absl::Status& status);

}  // namespace attend::client::internal

#endif  // ATTEND_CLIENT_LIB_SERVER_VERSION_H_
