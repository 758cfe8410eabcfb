// One upload of a layer, from its header to the layer that can be called.
#ifndef ATTEND_SERVER_LAYER_STORE_LAYER_UPLOAD_H_
#define ATTEND_SERVER_LAYER_STORE_LAYER_UPLOAD_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "attend/v1/layer_service.pb.h"
#include "core/kernels/instruction_set.h"
#include "core/runtime/executor.h"
#include "server/layer_store/layer_file.h"
#include "server/layer_store/layer_store.h"
#include "server/layers/layer.h"

namespace attend::server {

// Thread-compatible. An upload that is destroyed before it has finished leaves nothing behind. The store must outlive
// it.
class LayerUpload {
 public:
  // Errors: INVALID_ARGUMENT with the field of the header; those of LayerStore and StorageError.
  static absl::StatusOr<LayerUpload> Start(LayerStore& store, v1::CreateLayerHeader header);

  // The next bytes of the file. Errors: INVALID_ARGUMENT for bytes behind a header with `init`, RESOURCE_EXHAUSTED
  // naming the flag, those of StorageError.
  absl::Status Append(absl::Span<const std::string_view> pieces);

  std::int64_t payload_bytes() const { return file_.payload_bytes(); }
  bool on_disk() const { return file_.on_disk(); }

  // Makes the layer of what has come, keeps it and puts it where requests find it. Looks at `cancelled` before each of
  // these: CANCELLED. Errors: INVALID_ARGUMENT for bytes that are no layer, DATA_LOSS when they have another checksum
  // than the header says, those of LayerStore and StorageError. Idle threads of `executor` help to pack. REQUIRES:
  // called at most once.
  absl::StatusOr<std::shared_ptr<const Layer>> Finish(const std::atomic<bool>& cancelled, Executor& executor);

 private:
  LayerUpload(LayerStore& store, v1::CreateLayerHeader header, NewLayerFile file)
      : store_(&store), header_(std::move(header)), file_(std::move(file)) {}
  // What is kept behind the bytes. The etag is made of all the rest.
  LayerRecord MakeRecord();

  LayerStore* store_;
  v1::CreateLayerHeader header_;
  NewLayerFile file_;
};

// The layer that a record and its bytes describe, with a line in the log that says how long it took. `may_take` is
// asked once, before its weights are made or packed, whether so many bytes of memory may be taken. Idle threads of
// `executor` help to pack, if there is one. Errors: INVALID_ARGUMENT; those of `may_take`.
absl::StatusOr<std::shared_ptr<const Layer>> LoadLayer(const LayerRecord& record, const SharedBytes& payload,
                                                       InstructionSet instruction_set, Log& log,
                                                       absl::FunctionRef<absl::Status(std::int64_t bytes)> may_take,
                                                       Executor* executor = nullptr);

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYER_STORE_LAYER_UPLOAD_H_
