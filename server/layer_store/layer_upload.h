// One upload of a layer: the header and the file while its bytes arrive, and the layer that comes of them.
#ifndef ATTEND_SERVER_LAYER_STORE_LAYER_UPLOAD_H_
#define ATTEND_SERVER_LAYER_STORE_LAYER_UPLOAD_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "attend/v1/layer_service.pb.h"
#include "core/kernels/instruction_set.h"
#include "core/runtime/executor.h"
#include "server/base/limits.h"
#include "server/base/logging.h"
#include "server/layer_store/layer_file.h"
#include "server/layers/layer.h"
#include "server/layers/layer_registry.h"
#include "server/rpc/trace_context.h"

namespace attend::server {

// Whose layer an upload makes, who takes memory for that, how much all of that tenant's layers may take, and what the
// log says of the call.
struct LayerOwner {
  std::string tenant;
  AccountRef account = nullptr;
  std::int64_t max_layers_bytes = TenantLimits::kNone;
  TraceContext trace = {};
};

// Whether an upload may begin with `header`, as far as the header alone says. Errors: INVALID_ARGUMENT with its field,
// RESOURCE_EXHAUSTED naming the flag.
absl::Status CheckUploadHeader(const v1::CreateLayerHeader& header, const LayerLimits& limits);

// Comes from LayerStore::BeginUpload and goes to LayerStore::FinishUpload. One that is destroyed before leaves nothing
// behind. Thread-compatible.
class LayerUpload {
 public:
  // REQUIRES: CheckUploadHeader(header) is OK. `max_bytes` is the value of --max-layer-bytes.
  LayerUpload(LayerOwner owner, v1::CreateLayerHeader header, NewLayerFile file, std::int64_t max_bytes)
      : owner_(std::move(owner)), header_(std::move(header)), file_(std::move(file)), max_bytes_(max_bytes) {}

  // The next bytes of the file. Errors: INVALID_ARGUMENT for bytes behind a header with `init`, RESOURCE_EXHAUSTED
  // naming the flag, those of StorageError.
  absl::Status Append(absl::Span<const std::string_view> pieces);

  const v1::CreateLayerHeader& header() const { return header_; }
  // The layer that it makes.
  LayerKey key() const { return {owner_.tenant, header_.name()}; }
  const LayerOwner& owner() const { return owner_; }
  NewLayerFile& file() { return file_; }
  std::int64_t payload_bytes() const { return file_.payload_bytes(); }
  bool on_disk() const { return file_.on_disk(); }

  // What is kept behind the bytes; the etag is made of all the rest. Errors: INVALID_ARGUMENT when no bytes came, or
  // for a field that cannot be stored; DATA_LOSS when the bytes have another checksum than the header says. REQUIRES:
  // called at most once; no Append after it.
  absl::StatusOr<LayerRecord> MakeRecord();

 private:
  LayerOwner owner_;
  v1::CreateLayerHeader header_;
  NewLayerFile file_;
  std::int64_t max_bytes_;
};

// Who decides about the memory that making a layer takes, in bytes.
struct LayerMemory {
  using May = absl::FunctionRef<absl::Status(std::int64_t bytes)>;

  // Asked once, before weights are made or packed: for what the layer will take.
  May may_keep;
  // Asked before each copy of weights that cannot be used where they are: for all copies so far and this one. They are
  // gone when the layer is there.
  May may_copy;
};

// Finds the weights, makes the layer and logs how long each took, for the call of `trace`. Idle threads of `executor`
// help to pack, if there is one. One that `is_stored` has been served before, and what is refused of new ones alone
// does not refuse it. Errors: INVALID_ARGUMENT; those of `memory`. Thread-safe.
absl::StatusOr<std::shared_ptr<const Layer>> LoadLayer(const LayerRecord& record, const SharedBytes& payload,
                                                       InstructionSet instruction_set, Log& log,
                                                       const TraceContext& trace, const LayerMemory& memory,
                                                       Executor* executor = nullptr, bool is_stored = false);

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYER_STORE_LAYER_UPLOAD_H_
