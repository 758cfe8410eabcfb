// Creates, replaces and deletes layers: in memory, where requests find them, and on the disk, as one.
#ifndef ATTEND_SERVER_LAYER_STORE_LAYER_STORE_H_
#define ATTEND_SERVER_LAYER_STORE_LAYER_STORE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attend/v1/layer_service.pb.h"
#include "core/base/mutex.h"
#include "core/kernels/instruction_set.h"
#include "core/runtime/executor.h"
#include "server/base/limits.h"
#include "server/base/logging.h"
#include "server/layer_store/layer_bytes.h"
#include "server/layer_store/layer_storage.h"
#include "server/layer_store/layer_upload.h"
#include "server/layers/layer.h"
#include "server/layers/layer_registry.h"
#include "server/rpc/memory_budget.h"

namespace attend::server {

// Memory adds up: `max_layers_bytes` counts the layers that have names and the deleted ones that requests still use;
// what an upload takes only for a while (weights that `init` makes, copies of those that cannot be packed where they
// are, a replaced layer until its last request has ended) comes from the MemoryBudget of requests in flight, in the
// name of the upload's caller.
//
// Thread-safe after Open.
class LayerStore {
 public:
  struct Options {
    LayerLimits limits;
    LayerStorage::Options storage;
    InstructionSet instruction_set = BestInstructionSet();
  };

  // Loads every layer that is stored. `configured` are the layers of the server's own configuration, which belong to
  // the tenant `shared`; they win over its stored ones of the same names, which stay on the disk. `log` must outlive
  // the object. Errors: those of LayerStorage::Open; RESOURCE_EXHAUSTED naming the flag when there are more layers or
  // bytes than `limits` allow.
  static absl::StatusOr<std::unique_ptr<LayerStore>> Open(Options options,
                                                          std::vector<std::shared_ptr<const Layer>> configured,
                                                          Log& log);

  const LayerRegistry& registry() const { return registry_; }
  const LayerLimits& limits() const { return options_.limits; }
  // Memory of the layers. Asking waits for no upload and no deletion, and so for no disk.
  const LayerBytes& bytes() const { return bytes_; }

  // Begins an upload of a layer for `owner`. Errors: those of CheckUploadHeader; ALREADY_EXISTS, ABORTED for another
  // etag, FAILED_PRECONDITION for a layer of the configuration, RESOURCE_EXHAUSTED for too many layers; those of
  // StorageError.
  absl::StatusOr<LayerUpload> BeginUpload(LayerOwner owner, v1::CreateLayerHeader header) ABSL_LOCKS_EXCLUDED(mu_);

  // Changes that took place: requests see them, and they are to be on record, also where `kept` is an error. That one
  // is of StorageError: the disk has done it, and cannot promise that it survives a loss of power.
  struct Created {
    std::shared_ptr<const Layer> layer;
    bool replaced = false;
    absl::Status kept;
  };
  struct Deleted {
    std::string etag;
    absl::Status kept;
  };

  // Makes the layer of what has come, keeps it and puts it where requests find it. Looks at `cancelled` before each of
  // these: CANCELLED. Errors: those of LayerUpload::MakeRecord, INVALID_ARGUMENT for bytes that are no layer, those of
  // BeginUpload as things stand now, those of MemoryBudget::Reserve, ABORTED when another upload was faster. Idle
  // threads of `executor` help to pack. `memory` must outlive every layer. REQUIRES: called at most once for an upload.
  absl::StatusOr<Created> FinishUpload(LayerUpload& upload, const std::atomic<bool>& cancelled, Executor& executor,
                                       MemoryBudget& memory) ABSL_LOCKS_EXCLUDED(mu_);

  // Errors: NOT_FOUND, also for a layer that another tenant has; ABORTED when `etag` is not empty and not the layer's,
  // FAILED_PRECONDITION for a layer of the configuration, those of StorageError.
  absl::StatusOr<Deleted> Delete(const LayerKey& key, std::string_view etag) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // A reservation of memory for a layer, released unless Commit takes it over; `meanwhile` is for the upload's own use.
  class MemoryClaim {
   public:
    MemoryClaim(LayerStore& store, std::string tenant, std::int64_t bytes)
        : store_(&store), tenant_(std::move(tenant)), bytes_(bytes) {}
    MemoryClaim(MemoryClaim&& other) noexcept
        : meanwhile(std::move(other.meanwhile)),
          store_(other.store_),
          tenant_(std::move(other.tenant_)),
          bytes_(std::exchange(other.bytes_, 0)) {}
    MemoryClaim& operator=(MemoryClaim&&) = delete;
    ~MemoryClaim();

    MemoryBudget::Reservation meanwhile;

   private:
    friend class LayerStore;
    LayerStore* store_;
    std::string tenant_;
    std::int64_t bytes_;
  };

  LayerStore(Options options, std::unique_ptr<LayerStorage> storage, Log& log)
      : options_(std::move(options)), storage_(std::move(storage)), log_(log) {}

  absl::Status LoadStored(const StoredLayer& stored) ABSL_LOCKS_EXCLUDED(mu_);

  // Whether `header` may create its layer as things stand; looked at when an upload starts, and again when it ends.
  // Errors: ALREADY_EXISTS, ABORTED, FAILED_PRECONDITION, RESOURCE_EXHAUSTED.
  absl::Status CheckMayCreate(const std::string& tenant, const v1::CreateLayerHeader& header) const;
  // What counts of a layer between the loss of its name and its last request's end. Under mu_ until then.
  struct Leaving {
    MemoryBudget::Reservation memory;  // A replaced one's,
    LayerBytes::Left left;             // or a deleted one's.
  };
  struct Owner;  // Of a layer and its Leaving.
  // The same layer, whose end is also that of its Leaving.
  static std::shared_ptr<const Layer> Tracked(std::shared_ptr<const Layer> layer);
  static Leaving& LeavingOf(const std::shared_ptr<const Layer>& layer);

  // What the upload of `header` takes while the layer is made: weights of `init`, and the layer that it replaces.
  struct Meanwhile {
    std::int64_t raw_bytes;
    std::int64_t replaced_bytes;
  };
  Meanwhile BytesMeanwhile(const LayerUpload& upload) const;

  // Errors: RESOURCE_EXHAUSTED naming the flag, or with reason TENANT_QUOTA.
  absl::StatusOr<MemoryClaim> Reserve(const LayerUpload& upload, std::int64_t bytes) ABSL_LOCKS_EXCLUDED(mu_);
  // `claimed`: what is reserved for this one already.
  absl::Status CheckMemory(const LayerKey& key, std::int64_t bytes, const LayerOwner& owner,
                           std::int64_t claimed = 0) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Reserves what the layer will take, and what it takes meanwhile. Errors: those of Reserve and MemoryBudget::Reserve.
  absl::StatusOr<MemoryClaim> Claim(const LayerUpload& upload, std::int64_t bytes, MemoryBudget& memory)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Makes the layer of what has come, and `claim` the memory reserved for it. Errors: those of FinishUpload.
  absl::StatusOr<std::shared_ptr<const Layer>> MakeLayer(LayerUpload& upload, const LayerRecord& record,
                                                         const std::atomic<bool>& cancelled, Executor& executor,
                                                         MemoryBudget& memory, std::optional<MemoryClaim>& claim)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Makes `layer` the one that its name stands for, on the disk and then in the registry; `claim` is the memory
  // reserved for it. Errors: those of CheckMayCreate, where ALREADY_EXISTS is now ABORTED, because another upload was
  // faster; RESOURCE_EXHAUSTED; those of StorageError.
  absl::StatusOr<Created> Commit(LayerUpload& upload, std::shared_ptr<const Layer> layer, MemoryClaim& claim)
      ABSL_LOCKS_EXCLUDED(mu_);

  const Options options_;
  const std::unique_ptr<LayerStorage> storage_;
  Log& log_;
  LayerRegistry registry_;

  LayerBytes
      bytes_;  // After Open they grow with mu_ held, so that what a limit allowed is still allowed when it is taken.

  // Held while disk and registry change together, so that they never disagree: for as long as the disk takes. What only
  // reads the registry or bytes_ does not take it.
  mutable Mutex mu_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYER_STORE_LAYER_STORE_H_
