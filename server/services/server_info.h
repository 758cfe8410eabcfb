// AttentionService.GetServerInfo: what this server is and what it accepts.
#ifndef ATTEND_SERVER_SERVICES_SERVER_INFO_H_
#define ATTEND_SERVER_SERVICES_SERVER_INFO_H_

#include "attend/v1/attention_service.pb.h"
#include "core/kernels/instruction_set.h"
#include "server/layers/layer_limits.h"
#include "server/rpc/job.h"

namespace attend::server {

attend::v1::GetServerInfoResponse MakeServerInfo(const Limits& limits, const LayerLimits& layers,
                                                 InstructionSet instruction_set, int num_threads);

// Answers every GetServerInfoRequest with `info`, serialized once. Thread-safe.
Decoder ServerInfoDecoder(const attend::v1::GetServerInfoResponse& info);

}  // namespace attend::server

#endif  // ATTEND_SERVER_SERVICES_SERVER_INFO_H_
