#include "server/services/estimate_cost.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "core/base/error.h"
#include "server/services/control_method.h"
#include "server/wire/enums.h"
#include "server/wire/stream_messages.h"

namespace attend::server {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// As it is told: no machine has more, and nothing takes less than none.
std::int64_t Whole(double bytes) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  return bytes < static_cast<double>(kMost) ? static_cast<std::int64_t>(std::max(bytes, 0.0)) : kMost;
}

// Of a payload behind its length.
double PrefixedBytes(double payload) {
  using google::protobuf::io::CodedOutputStream;
  return static_cast<double>(CodedOutputStream::VarintSize64(static_cast<std::uint64_t>(Whole(payload)))) + payload;
}

// Of a field of bytes whose tag takes one byte, and which is left out when it is empty.
double FieldBytes(double payload) { return payload == 0 ? 0 : 1 + PrefixedBytes(payload); }

// The size of `tensor`, which is right, with its elements as `data`. `field` is where it stands.
double TensorBytes(const v1::Tensor& tensor, const FieldDescriptor& field) {
  const bool is_mask = field.name() == "mask" || field.name() == "key_mask";
  const auto type = FromWire(tensor.data_type(), is_mask ? DataType::kBool : DataType::kFloat32);
  auto contents = static_cast<double>(ElementSize(type.value_or(DataType::kFloat32)));
  for (const std::int64_t axis : tensor.shape()) contents *= static_cast<double>(axis);
  return static_cast<double>(tensor.ByteSizeLong()) - FieldBytes(static_cast<double>(tensor.data().size())) -
         FieldBytes(sizeof(float) * static_cast<double>(tensor.values_size())) + FieldBytes(contents);
}

// The size of `message`, which is right, with the elements of all its tensors as `data`.
double RequestBytes(const Message& message) {
  auto bytes = static_cast<double>(message.ByteSizeLong());
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_repeated()) continue;
    const Message& part = message.GetReflection()->GetMessage(message, field);
    const auto* tensor = dynamic_cast<const v1::Tensor*>(&part);
    const double full = tensor != nullptr ? TensorBytes(*tensor, *field) : RequestBytes(part);
    bytes += PrefixedBytes(full) - PrefixedBytes(static_cast<double>(part.ByteSizeLong()));
  }
  return bytes;
}

// What a call would be refused with by its size, in the order in which it asks.
absl::Status CheckLimits(double request_bytes, const RequestCost& cost, const RequestServices& services) {
  absl::Status status = CheckRequestBytes(Whole(request_bytes), services.limits);
  if (status.ok()) status = services.memory->CheckFits(request_bytes);
  if (status.ok()) status = services.memory->CheckFits(request_bytes + cost.list_bytes);
  if (status.ok()) status = CheckCost(cost, services.limits);
  if (status.ok()) status = services.memory->CheckFits(cost.memory_bytes);
  return status;
}

// The field of ServerLimits that `flag` sets: `max_request_flops` for `--max-request-flops`.
std::string LimitName(const absl::Status& status) {
  for (const auto& [key, flag] : GetErrorDetails(status).metadata) {
    if (key == "flag") return absl::StrReplaceAll(absl::StripPrefix(flag, "--"), {{"-", "_"}});
  }
  return "";
}

}  // namespace

absl::StatusOr<v1::EstimateCostResponse> EstimateCost(const v1::EstimateCostRequest& request, const std::string& tenant,
                                                      const Estimators& estimators, const RequestServices& services) {
  if (request.request_case() == v1::EstimateCostRequest::REQUEST_NOT_SET) return MissingRequest();
  const bool is_attend = request.has_attend();
  const Message& carried =
      is_attend ? static_cast<const Message&>(request.attend()) : request.scaled_dot_product_attention();
  const Estimator& estimate = is_attend ? estimators.attend : estimators.scaled_dot_product_attention;
  const absl::StatusOr<RequestCost> cost = estimate(SerializeControlMessage(carried), {services.limits, tenant});
  if (!cost.ok()) return cost.status();

  const double request_bytes = RequestBytes(carried);
  v1::EstimateCostResponse response;
  response.set_flops(cost->flops);
  response.set_memory_bytes(Whole(cost->memory_bytes));
  response.set_request_bytes(Whole(request_bytes));
  response.set_response_bytes(Whole(cost->response_bytes));
  response.set_predicted_milliseconds(
      services.admission->PredictedMs({.flops = cost->flops, .bytes = cost->memory_bytes}, tenant));
  const absl::Status refused = CheckLimits(request_bytes, *cost, services);
  response.set_admissible(refused.ok());
  response.set_limit(LimitName(refused));
  response.set_description(std::string(refused.message()));
  return response;
}

}  // namespace attend::server
