#include "client/lib/server_version.h"

#include <google/protobuf/descriptor.h>
#include <grpcpp/client_context.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attend/v1/layer_service.pb.h"

namespace attend::client::internal {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// The last field of version 0.1 in each message of a request that has newer ones (tests/data/attend_v1_0_1.binpb).
int LastFieldOf01(const Descriptor* type) {
  if (type == v1::AttentionOptions::descriptor()) return v1::AttentionOptions::kTopKFieldNumber;
  if (type == v1::AttendRequest::descriptor()) return v1::AttendRequest::kPositionOffsetFieldNumber;
  if (type == v1::ScaledDotProductAttentionRequest::descriptor()) {
    return v1::ScaledDotProductAttentionRequest::kPartialsFieldNumber;
  }
  if (type == v1::StreamAttendRequest::descriptor()) return v1::StreamAttendRequest::kAttendFieldNumber;
  if (type == v1::LayerConfig::descriptor()) return v1::LayerConfig::kIgnoredTensorsFieldNumber;
  return FieldDescriptor::kMaxNumber;
}

void SetDeadline(absl::Time deadline, grpc::ClientContext& context) {
  context.set_deadline(absl::ToChronoTime(deadline));
}

}  // namespace

std::string FieldUnknownTo01(const Message& request) {
  std::vector<const FieldDescriptor*> fields;
  request.GetReflection()->ListFields(request, &fields);
  const int last = LastFieldOf01(request.GetDescriptor());
  for (const FieldDescriptor* const field : fields) {
    if (field->number() > last) return field->name();
    // No request holds messages in a list.
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_repeated()) continue;
    const std::string deeper = FieldUnknownTo01(request.GetReflection()->GetMessage(request, field));
    if (!deeper.empty()) return absl::StrCat(field->name(), ".", deeper);
  }
  return "";
}

bool IsVersion01(v1::AttentionService::Stub& stub, absl::Time deadline) {
  grpc::ClientContext context;
  SetDeadline(deadline, context);
  v1::EstimateCostResponse response;  // A method of version 0.2; nothing is asked, so that it costs nothing.
  return stub.EstimateCost(&context, v1::EstimateCostRequest(), &response).error_code() == grpc::UNIMPLEMENTED;
}

absl::Status UnknownField(v1::AttentionService::Stub& stub, absl::Time deadline, const std::string& field,
                          const std::string& what) {
  grpc::ClientContext context;
  SetDeadline(deadline, context);
  v1::GetServerInfoResponse info;
  const bool known = stub.GetServerInfo(&context, v1::GetServerInfoRequest(), &info).ok();
  const std::string version = known ? absl::StrCat("has version ", info.version(), " and") : "is older than 0.2 and";
  return absl::UnimplementedError(
      absl::StrCat("the server ", version, " does not know `", field, "`, which came with 0.2: ", what));
}

absl::Status WithoutReceipt(v1::AttentionService::Stub& stub, absl::Time deadline, const std::string& field,
                            const absl::Status& status) {
  constexpr char kAdvice[] = "leave the field out, or ask a newer server";
  if (status.ok()) {
    return UnknownField(stub, deadline, field,
                        absl::StrCat("it ignored the field, so its answer is not what was asked for; ", kAdvice));
  }
  // It may have refused what was left of the request.
  if (!absl::IsInvalidArgument(status) || !IsVersion01(stub, deadline)) return status;
  return UnknownField(stub, deadline, field, absl::StrCat("it refused the rest (", status.message(), "); ", kAdvice));
}

}  // namespace attend::client::internal
