#include "server/layer_store/layer_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/base/protocol.h"
#include "server/layer_store/layer_upload.h"
#include "server/layers/layer_registry.h"
#include "server/rpc/tenant_quota.h"

namespace attend::server {
namespace {

// Deleting a layer frees the quota; nobody knows when.
constexpr std::int64_t kQuotaRetryDelayMs = 60'000;

absl::Status Refused(absl::StatusCode code, const char* reason, const std::string& name, const std::string& sentence) {
  return WithDetails(absl::Status(code, sentence), {.reason = reason, .field = "", .metadata = {{"layer_name", name}}});
}

absl::Status AlreadyExists(const std::string& name) {
  return Refused(absl::StatusCode::kAlreadyExists, reason::kLayerExists, name,
                 absl::StrCat("there is a layer '", name, "' already; set `replace` to put another in its place"));
}

absl::Status ReadOnly(const std::string& name) {
  return Refused(absl::StatusCode::kFailedPrecondition, reason::kLayerReadOnly, name,
                 absl::StrCat("the layer '", name,
                              "' comes from the server's own configuration and can be neither replaced nor deleted"));
}

absl::Status EtagDiffers(const std::string& name, std::string_view etag, const Layer* layer) {
  const std::string there = layer == nullptr ? "there is no such layer" : "it is " + layer->description().etag();
  return Refused(absl::StatusCode::kAborted, reason::kEtagMismatch, name,
                 absl::StrCat("the etag of the layer '", name, "' is not '", std::string(etag), "'; ", there,
                              ": look at the layer again before you decide"));
}

// The error of a change that took place.
absl::Status ButDone(const absl::Status& synced, std::string_view what) {
  if (synced.ok()) return synced;
  return WithDetails(absl::Status(synced.code(), absl::StrCat(synced.message(), "; ", std::string(what),
                                                              ", but a loss of power may undo that")),
                     GetErrorDetails(synced));
}

absl::Status Cancelled() { return absl::CancelledError("the caller cancelled the upload"); }

// The tenant counts it, as it counts its refused requests.
absl::Status QuotaIsUsed(const LayerOwner& owner, std::int64_t bytes) {
  constexpr char kQuota[] = "max_layers_bytes";
  if (owner.account != nullptr) owner.account->tenant->Refused();
  return bytes > owner.max_layers_bytes ? BeyondQuota(owner.tenant, kQuota, bytes, owner.max_layers_bytes)
                                        : QuotaError(owner.tenant, kQuota, kQuotaRetryDelayMs);
}

bool HasEtag(const Layer* layer, std::string_view etag) {
  return layer != nullptr && layer->description().etag() == etag;
}

}  // namespace

struct LayerStore::Owner {
  std::shared_ptr<const Layer> layer;
  std::unique_ptr<Leaving> leaving;

  void operator()(const Layer* /*the same*/) {
    layer.reset();
    leaving.reset();
  }
};

std::shared_ptr<const Layer> LayerStore::Tracked(std::shared_ptr<const Layer> layer) {
  const Layer* const plain = layer.get();
  return {plain, Owner{std::move(layer), std::make_unique<Leaving>()}};
}

LayerStore::Leaving& LayerStore::LeavingOf(const std::shared_ptr<const Layer>& layer) {
  return *std::get_deleter<Owner>(layer)->leaving;
}

LayerStore::Meanwhile LayerStore::BytesMeanwhile(const LayerUpload& upload) const {
  const v1::CreateLayerHeader& header = upload.header();
  const std::shared_ptr<const Layer> old = registry_.Find(upload.key());
  return {.raw_bytes = header.has_init() ? SeededWeightBytes(header.init().embed_dim()) : 0,
          .replaced_bytes = old == nullptr ? 0 : std::int64_t{old->description().memory_bytes()}};
}

LayerStore::MemoryClaim::~MemoryClaim() {
  if (bytes_ != 0) store_->bytes_.Take(tenant_, -bytes_);
}

absl::StatusOr<std::unique_ptr<LayerStore>> LayerStore::Open(Options options,
                                                             std::vector<std::shared_ptr<const Layer>> configured,
                                                             Log& log) {
  absl::StatusOr<std::unique_ptr<LayerStorage>> storage = LayerStorage::Open(options.storage, log);
  if (!storage.ok()) return storage.status();
  std::unique_ptr<LayerStore> store(new LayerStore(std::move(options), *std::move(storage), log));
  for (std::shared_ptr<const Layer>& layer : configured) {
    store->bytes_.Take(kSharedTenant, layer->description().memory_bytes());
    const LayerKey key{kSharedTenant, layer->description().name()};
    store->registry_.Put(key, std::move(layer));
  }
  absl::Status loaded =
      store->storage_->LoadAll([&store](const StoredLayer& stored) { return store->LoadStored(stored); });
  if (!loaded.ok()) return loaded;
  return store;
}

absl::Status LayerStore::LoadStored(const StoredLayer& stored) {
  const LayerKey key{stored.record.tenant, stored.record.header.name()};
  if (registry_.Find(key) != nullptr) return absl::OkStatus();  // One of the configuration.
  if (static_cast<int>(registry_.size()) >= options_.limits.max_layers) {
    return LimitExceeded("--max-layers",
                         absl::StrCat("--data-dir holds more layers than the ", options_.limits.max_layers,
                                      " that this server may keep "
                                      "(--max-layers)"));
  }
  const auto may_keep = [this, &key](std::int64_t bytes) {
    const MutexLock lock(mu_);
    return CheckMemory(key, bytes, {.tenant = key.tenant});
  };
  // One layer after the other is loaded, and nothing else takes memory as yet.
  absl::StatusOr<std::shared_ptr<const Layer>> layer =
      LoadLayer(stored.record, stored.payload, options_.instruction_set, log_, /*trace=*/{},
                {.may_keep = may_keep, .may_copy = formats::CopyAnything}, /*executor=*/nullptr, /*is_stored=*/true);
  if (!layer.ok()) return layer.status();
  bytes_.Take(key.tenant, (*layer)->description().memory_bytes());
  registry_.Put(key, Tracked(*std::move(layer)));
  return absl::OkStatus();
}

absl::Status LayerStore::CheckMayCreate(const std::string& tenant, const v1::CreateLayerHeader& header) const {
  const std::string& name = header.name();
  const std::shared_ptr<const Layer> layer = registry_.Find({tenant, name});
  if (layer != nullptr && layer->description().read_only()) return ReadOnly(name);
  if (layer != nullptr && !header.replace()) return AlreadyExists(name);
  if (!header.etag().empty() && !HasEtag(layer.get(), header.etag())) {
    return EtagDiffers(name, header.etag(), layer.get());
  }
  if (layer == nullptr && static_cast<int>(registry_.size()) >= options_.limits.max_layers) {
    return LimitExceeded("--max-layers", absl::StrCat("this server keeps at most ", options_.limits.max_layers,
                                                      " layers (--max-layers); delete one first"));
  }
  return absl::OkStatus();
}

absl::Status LayerStore::CheckMemory(const LayerKey& key, std::int64_t bytes, const LayerOwner& owner,
                                     std::int64_t claimed) const {
  const std::shared_ptr<const Layer> old = registry_.Find(key);
  const std::int64_t old_bytes = old == nullptr ? 0 : std::int64_t{old->description().memory_bytes()};
  if (bytes > owner.max_layers_bytes - (bytes_.OfTenant(key.tenant) - old_bytes - claimed)) {
    return QuotaIsUsed(owner, bytes);
  }
  const std::int64_t others = bytes_.held() - old_bytes - claimed;
  if (bytes <= options_.limits.max_layers_bytes - others) return absl::OkStatus();
  return LimitExceeded(
      "--max-layers-bytes",
      absl::StrCat("the layer '", key.name, "' takes ", bytes, " bytes of memory and the others ", others,
                   ", but all layers may take ", options_.limits.max_layers_bytes, " (--max-layers-bytes)"));
}

absl::StatusOr<LayerStore::MemoryClaim> LayerStore::Reserve(const LayerUpload& upload, std::int64_t bytes) {
  const LayerKey key = upload.key();
  const MutexLock lock(mu_);
  if (absl::Status enough = CheckMemory(key, bytes, upload.owner()); !enough.ok()) return enough;
  bytes_.Take(key.tenant, bytes);
  return MemoryClaim(*this, key.tenant, bytes);
}

absl::StatusOr<LayerUpload> LayerStore::BeginUpload(LayerOwner owner, v1::CreateLayerHeader header) {
  if (absl::Status checked = CheckUploadHeader(header, options_.limits); !checked.ok()) return checked;
  if (absl::Status may = CheckMayCreate(owner.tenant, header); !may.ok()) return may;
  absl::StatusOr<NewLayerFile> file = storage_->Create();
  if (!file.ok()) return file.status();
  return LayerUpload(std::move(owner), std::move(header), *std::move(file), options_.limits.max_layer_bytes);
}

absl::StatusOr<LayerStore::MemoryClaim> LayerStore::Claim(const LayerUpload& upload, std::int64_t bytes,
                                                          MemoryBudget& memory) {
  const Meanwhile meanwhile = BytesMeanwhile(upload);
  auto reserved = memory.Reserve(static_cast<double>(meanwhile.raw_bytes + meanwhile.replaced_bytes),
                                 upload.owner().account, MemoryBudget::User::kUploads);
  if (!reserved.ok()) return reserved.status();
  absl::StatusOr<MemoryClaim> claim = Reserve(upload, bytes);
  if (claim.ok()) claim->meanwhile = *std::move(reserved);
  return claim;
}

absl::StatusOr<std::shared_ptr<const Layer>> LayerStore::MakeLayer(LayerUpload& upload, const LayerRecord& record,
                                                                   const std::atomic<bool>& cancelled,
                                                                   Executor& executor, MemoryBudget& memory,
                                                                   std::optional<MemoryClaim>& claim) {
  const absl::StatusOr<SharedBytes> payload = upload.file().Map();
  if (!payload.ok()) return payload.status();
  const auto may_keep = [&](std::int64_t bytes) {
    if (cancelled.load()) return Cancelled();
    absl::StatusOr<MemoryClaim> claimed = Claim(upload, bytes, memory);
    if (!claimed.ok()) return claimed.status();
    claim.emplace(*std::move(claimed));
    return absl::OkStatus();
  };
  // Given back when the layer is there. Reserving nothing never fails.
  MemoryBudget::Reservation copies = *memory.Reserve(0, upload.owner().account, MemoryBudget::User::kUploads);
  const auto may_copy = [&](std::int64_t bytes) {
    return cancelled.load() ? Cancelled() : copies.Resize(static_cast<double>(bytes));
  };
  return LoadLayer(record, *payload, options_.instruction_set, log_, upload.owner().trace,
                   {.may_keep = may_keep, .may_copy = may_copy}, &executor);
}

absl::StatusOr<LayerStore::Created> LayerStore::FinishUpload(LayerUpload& upload, const std::atomic<bool>& cancelled,
                                                             Executor& executor, MemoryBudget& memory) {
  const absl::StatusOr<LayerRecord> record = upload.MakeRecord();
  if (!record.ok()) return record.status();
  std::optional<MemoryClaim> claim;
  absl::StatusOr<std::shared_ptr<const Layer>> layer = MakeLayer(upload, *record, cancelled, executor, memory, claim);
  if (!layer.ok()) return layer.status();
  if (cancelled.load()) return Cancelled();
  if (absl::Status sealed = upload.file().Seal(*record); !sealed.ok()) return sealed;
  if (cancelled.load()) return Cancelled();
  return Commit(upload, Tracked(*std::move(layer)), *claim);
}

absl::StatusOr<LayerStore::Created> LayerStore::Commit(LayerUpload& upload, std::shared_ptr<const Layer> layer,
                                                       MemoryClaim& claim) {
  const v1::CreateLayerHeader& header = upload.header();
  const LayerKey key = upload.key();
  // Both perhaps freed here, when the lock has been given back.
  MemoryBudget::Reservation meanwhile = std::move(claim.meanwhile);
  std::shared_ptr<const Layer> old;
  const MutexLock lock(mu_);
  if (absl::Status may = CheckMayCreate(key.tenant, header); !may.ok()) {
    if (!absl::IsAlreadyExists(may)) return may;
    return Refused(absl::StatusCode::kAborted, reason::kUploadOvertaken, key.name,
                   absl::StrCat("another upload of the layer '", key.name, "' was faster"));
  }
  const std::int64_t bytes = layer->description().memory_bytes();
  if (absl::Status enough = CheckMemory(key, bytes, upload.owner(), claim.bytes_); !enough.ok()) {
    return enough;
  }
  old = registry_.Find(key);
  const std::int64_t old_bytes = old == nullptr ? 0 : std::int64_t{old->description().memory_bytes()};
  if (absl::Status counted = meanwhile.Resize(static_cast<double>(old_bytes)); !counted.ok()) return counted;
  bool renamed = false;
  absl::Status published = upload.file().Publish(LayerFileName(key), renamed);
  // Where the file has its name, memory follows, whatever else went wrong: the two never disagree.
  if (!renamed) return published;
  bytes_.Take(key.tenant, bytes - old_bytes - std::exchange(claim.bytes_, 0));
  if (old != nullptr) LeavingOf(old).memory = std::move(meanwhile);  // Requests may use it for a while yet.
  registry_.Put(key, layer);
  return Created{.layer = std::move(layer),
                 .replaced = old != nullptr,
                 .kept = ButDone(published, "the new layer is in its place")};
}

absl::StatusOr<LayerStore::Deleted> LayerStore::Delete(const LayerKey& key, std::string_view etag) {
  std::shared_ptr<const Layer> layer;
  const MutexLock lock(mu_);
  layer = registry_.Find(key);
  if (layer == nullptr) return LayerNotFound(key.name, "name");
  if (layer->description().read_only()) return ReadOnly(key.name);
  if (!etag.empty() && !HasEtag(layer.get(), etag)) return EtagDiffers(key.name, etag, layer.get());
  bool removed = false;
  absl::Status synced = storage_->Remove(key, removed);
  if (!removed) return synced;  // Else memory follows the disk, as in Commit.
  // Requests may use it for a while yet.
  LeavingOf(layer).left = bytes_.Leave(key.tenant, layer->description().memory_bytes());
  registry_.Remove(key);
  return Deleted{.etag = layer->description().etag(), .kept = ButDone(synced, "the layer is deleted")};
}

}  // namespace attend::server
