// grpc.reflection.v1 and v1alpha: lets grpcurl, ghz and their like ask what the server speaks.
//
// Debian's gRPC has v1alpha alone, while new clients ask for v1; the messages of both are the same but for their
// package, so one implementation serves both.
#ifndef ATTEND_SERVER_SERVICES_REFLECTION_SERVICE_H_
#define ATTEND_SERVER_SERVICES_REFLECTION_SERVICE_H_

#include <google/protobuf/descriptor.h>

#include <map>
#include <string>
#include <vector>

#include "grpc/reflection/v1/reflection.pb.h"
#include "server/rpc/call.h"
#include "server/rpc/memory_budget.h"

namespace attend::server {

// Answers one question. A file comes first and then, in the same answer, everything it imports, so that a client needs
// no second question. Thread-safe.
class Reflection {
 public:
  // `services` are the full names to list. `pool` must outlive this object.
  Reflection(std::vector<std::string> services, const google::protobuf::DescriptorPool& pool);

  // Never fails: what is unknown is answered by an ErrorResponse, as the protocol wants it.
  grpc::reflection::v1::ServerReflectionResponse Answer(
      const grpc::reflection::v1::ServerReflectionRequest& request) const;

 private:
  using Response = grpc::reflection::v1::ServerReflectionResponse;
  void SetFile(const google::protobuf::FileDescriptor* file, const std::string& asked, Response& response) const;
  void SetExtensionFile(const grpc::reflection::v1::ServerReflectionRequest& request, Response& response) const;

  const std::vector<std::string> services_;
  const google::protobuf::DescriptorPool& pool_;
  // Of each file of `services_`, what answers a question for it: making that takes a hundred times as long as the rest.
  std::map<const google::protobuf::FileDescriptor*, grpc::reflection::v1::FileDescriptorResponse> files_;
};

// Adds ServerReflectionInfo of both versions. An answer counts against `memory` until it is written; a stream ends with
// UNAVAILABLE when more than a quarter of it is taken. Both must outlive every call.
void AddReflectionService(const Reflection& reflection, MemoryBudget& memory, MethodTable& methods);

}  // namespace attend::server

#endif  // ATTEND_SERVER_SERVICES_REFLECTION_SERVICE_H_
