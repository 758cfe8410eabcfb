#include "server/services/server_info.h"

#include <memory>
#include <string>

#include "server/services/control_message.h"
#include "server/services/ready_job.h"
#include "server/version.h"

namespace attend::server {

attend::v1::GetServerInfoResponse MakeServerInfo(const Limits& limits, InstructionSet instruction_set,
                                                 int num_threads) {
  attend::v1::GetServerInfoResponse info;
  info.set_version(kVersion);
  info.set_instruction_set(std::string(InstructionSetName(instruction_set)));
  info.set_bit_reproducible(IsBitReproducible(instruction_set));
  info.set_num_threads(num_threads);
  for (const attend::v1::DataType type :
       {attend::v1::DATA_TYPE_FLOAT32, attend::v1::DATA_TYPE_FLOAT64, attend::v1::DATA_TYPE_FLOAT16,
        attend::v1::DATA_TYPE_BFLOAT16, attend::v1::DATA_TYPE_BOOL}) {
    info.add_supported_data_types(type);
  }
  info.mutable_limits()->set_max_request_bytes(limits.max_request_bytes);
  info.mutable_limits()->set_max_response_bytes(limits.max_response_bytes);
  info.mutable_limits()->set_max_request_flops(limits.max_request_flops);
  info.mutable_limits()->set_max_request_memory_bytes(limits.max_request_memory_bytes);
  info.mutable_limits()->set_max_queued_requests(limits.max_queued_requests);
  info.mutable_limits()->set_max_memory_in_flight_bytes(limits.max_memory_in_flight_bytes);
  info.mutable_limits()->set_max_stream_requests_in_flight(limits.max_stream_requests_in_flight);
  return info;
}

Decoder ServerInfoDecoder(const attend::v1::GetServerInfoResponse& info) {
  return [response = SerializeControlMessage(info)](const grpc::ByteBuffer& bytes,
                                                    const Limits&) -> absl::StatusOr<std::unique_ptr<Job>> {
    attend::v1::GetServerInfoRequest request;
    if (absl::Status parsed = ParseControlMessage(bytes, request); !parsed.ok()) return parsed;
    return std::make_unique<ReadyJob>(response);
  };
}

}  // namespace attend::server
