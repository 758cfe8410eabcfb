#include <string>

#include "core/kernels/instruction_set.h"
#include "server/base/protocol.h"
#include "server/requests/decoders.h"
#include "server/services/attend_services.h"
#include "server/services/control_method.h"
#include "server/services/estimate_cost.h"

namespace attend::server {
namespace {

v1::GetServerInfoResponse ServerInfo(const RequestServices& requests, const LayerLimits& layers) {
  const Limits& limits = requests.limits;
  v1::GetServerInfoResponse info;
  info.set_version(kVersion);
  info.set_instruction_set(std::string(InstructionSetName(requests.kernels.instruction_set)));
  info.set_bit_reproducible(IsBitReproducible(requests.kernels.instruction_set));
  info.set_num_threads(limits.num_threads);
  for (const v1::DataType type : {v1::DATA_TYPE_FLOAT32, v1::DATA_TYPE_FLOAT64, v1::DATA_TYPE_FLOAT16,
                                  v1::DATA_TYPE_BFLOAT16, v1::DATA_TYPE_BOOL}) {
    info.add_supported_data_types(type);
  }
  info.mutable_limits()->set_max_request_bytes(limits.max_request_bytes);
  info.mutable_limits()->set_max_response_bytes(limits.max_response_bytes);
  info.mutable_limits()->set_max_request_flops(limits.max_request_flops);
  info.mutable_limits()->set_max_request_memory_bytes(limits.max_request_memory_bytes);
  info.mutable_limits()->set_max_queued_requests(limits.max_queued_requests);
  info.mutable_limits()->set_max_memory_in_flight_bytes(limits.max_memory_in_flight_bytes);
  info.mutable_limits()->set_max_stream_requests_in_flight(limits.max_stream_requests_in_flight);
  info.mutable_limits()->set_max_layers(layers.max_layers);
  info.mutable_limits()->set_max_layer_bytes(layers.max_layer_bytes);
  info.mutable_limits()->set_max_layers_bytes(layers.max_layers_bytes);
  info.mutable_limits()->set_max_uploads(layers.max_uploads);
  return info;
}

}  // namespace

void AddAttentionService(const RequestServices& requests, const LayerStore& layers, MethodTable& methods) {
  const std::string service = "/attend.v1.AttentionService/";
  const LayerRegistry& registry = layers.registry();
  const KernelChoice& kernels = requests.kernels;
  const RequestMethod attend{.decode = AttendDecoder(&registry, kernels), .kind = WorkKind::kAttend};
  const RequestMethod sdpa{.decode = SdpaDecoder(kernels), .kind = WorkKind::kScaledDotProductAttention};
  methods.Add(service + "Attend", MakeUnaryMethod(requests, attend));
  methods.Add(service + "ScaledDotProductAttention", MakeUnaryMethod(requests, sdpa));
  methods.Add(service + "StreamAttend",
              MakeStreamMethod(requests, {.attend = attend, .scaled_dot_product_attention = sdpa}));
  const Estimators estimators{.attend = AttendEstimator(&registry, kernels),
                              .scaled_dot_product_attention = SdpaEstimator(kernels)};
  methods.Add(service + "EstimateCost",
              MakeUnaryMethod(requests, ControlMethod<v1::EstimateCostRequest>(
                                            [estimators, &requests](const v1::EstimateCostRequest& request,
                                                                    const std::string& tenant) {
                                              return EstimateCost(request, tenant, estimators, requests);
                                            },
                                            kMaxEstimateBytes)));
  methods.Add(
      service + "GetServerInfo",
      MakeUnaryMethod(requests, ControlMethod<v1::GetServerInfoRequest>(
                                    [info = ServerInfo(requests, layers.limits())](const v1::GetServerInfoRequest&)
                                        -> absl::StatusOr<v1::GetServerInfoResponse> { return info; })),
      Roles::Compute() | Roles::Observe());
}

}  // namespace attend::server
