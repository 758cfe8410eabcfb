// CreateLayer: the header and the bytes of a layer come in, the layer that can be called goes out.
//
// Stations: take a slot -> read messages -> write them (upload threads) -> make and keep the layer (an upload thread)
// -> respond. The polling thread only hands messages over. It reads on while few bytes wait to be written, so that a
// caller that sends faster than the disk writes is slowed down by HTTP/2's flow control, and what waits counts against
// the MemoryBudget.
#ifndef ATTEND_SERVER_SERVICES_CREATE_LAYER_CALL_H_
#define ATTEND_SERVER_SERVICES_CREATE_LAYER_CALL_H_

#include <cstdint>

#include "core/runtime/executor.h"
#include "server/layer_store/layer_store.h"
#include "server/rpc/memory_budget.h"
#include "server/rpc/method_table.h"
#include "server/services/upload_slots.h"

namespace attend::server {

// What all uploads share. Outlives every call.
struct UploadServices {
  LayerStore* store = nullptr;
  UploadSlots* slots = nullptr;
  MemoryBudget* memory = nullptr;
  // Threads of their own, because writing waits for the disk and packing takes seconds: neither uploads nor requests
  // wait for the other. Takes as many tasks as there are slots.
  Executor* executor = nullptr;
  std::int64_t max_request_bytes = 0;  // Of one message.
};

Method MakeCreateLayerMethod(const UploadServices& services);

}  // namespace attend::server

#endif  // ATTEND_SERVER_SERVICES_CREATE_LAYER_CALL_H_
