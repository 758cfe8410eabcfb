// Everything about a stored layer but its bytes, in memory and as it stands on the disk.
//
// On the disk it is an attend.storage.v1.LayerRecord, whose messages are copies of those of attend.v1: the same numbers
// and types, so that one is read as the other. What only one of the two knows is refused, never dropped.
#ifndef ATTEND_SERVER_LAYER_STORE_LAYER_RECORD_H_
#define ATTEND_SERVER_LAYER_STORE_LAYER_RECORD_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "attend/v1/layer_service.pb.h"
#include "server/identity/tenant.h"

namespace attend::server {

struct LayerRecord {
  v1::CreateLayerHeader header;  // Without `replace`; `etag` and `sha256` are the layer's.
  std::int64_t create_time_ms = 0;
  std::string tenant = kSharedTenant;
};

// The same bytes for the same record. Pure. Errors: INVALID_ARGUMENT (`header`) for a field that this version cannot
// store: one of a newer attend.v1.
absl::StatusOr<std::string> SerializeRecord(const LayerRecord& record);

// Pure. Errors: DATA_LOSS for bytes that are no record, or that have a field of a newer version.
absl::StatusOr<LayerRecord> ParseRecord(std::string_view bytes);

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYER_STORE_LAYER_RECORD_H_
