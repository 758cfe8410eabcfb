// The services of attend.v1: AttentionService, which computes, and LayerService, which keeps the layers that Attend
// calls by name. Each function adds the methods of one service; all arguments must outlive every call.
#ifndef ATTEND_SERVER_SERVICES_ATTEND_SERVICES_H_
#define ATTEND_SERVER_SERVICES_ATTEND_SERVICES_H_

#include <cstdint>

#include "attend/v1/attention_service.pb.h"
#include "core/runtime/executor.h"
#include "server/base/limits.h"
#include "server/layer_store/layer_store.h"
#include "server/layers/layer_registry.h"
#include "server/rpc/audit.h"
#include "server/rpc/call.h"
#include "server/rpc/memory_budget.h"
#include "server/rpc/request_run.h"
#include "server/services/upload_slots.h"

namespace attend::server {

// Attend, ScaledDotProductAttention, StreamAttend, EstimateCost and GetServerInfo.
void AddAttentionService(const RequestServices& requests, const LayerStore& layers, MethodTable& methods);

// What uploads and deletions share.
struct UploadServices {
  LayerStore* store = nullptr;
  UploadSlots* slots = nullptr;
  MemoryBudget* memory = nullptr;
  // Threads of their own, because writing waits for the disk and packing takes seconds: neither uploads nor requests
  // wait for the other. Its queue has room for a task of each upload and of kMaxDeletions deletions.
  Executor* executor = nullptr;
  Audit* audit = nullptr;              // Null: nobody asks.
  std::int64_t max_request_bytes = 0;  // Of one message of an upload.
};

// The most layers that are being deleted at a time.
inline constexpr int kMaxDeletions = 16;

// CreateLayer, GetLayer, ListLayers and DeleteLayer.
void AddLayerService(const UploadServices& uploads, const RequestServices& requests, MethodTable& methods);

// CreateLayer: the header and the bytes of a layer come in, the layer that can be called goes out.
//
// Stations: take a slot -> read messages -> write them (upload threads) -> make and keep the layer (an upload thread)
// -> respond. The polling thread only hands messages over. It reads on while few bytes wait to be written, so that a
// caller that sends faster than the disk writes is slowed down by HTTP/2's flow control, and what waits counts against
// the MemoryBudget.
MethodEntry MakeCreateLayerMethod(const UploadServices& services);

}  // namespace attend::server

#endif  // ATTEND_SERVER_SERVICES_ATTEND_SERVICES_H_
