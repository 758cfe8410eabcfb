#include "server/layer_store/layer_storage.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace attend::server {
namespace {

constexpr char kLayersFolder[] = "layers";
constexpr char kQuarantineFolder[] = "quarantine";
constexpr char kNotDamage[] =
    "; the layer may be whole, and the server does not start without it: make the file readable, or move it away";

std::string Text(const absl::Status& status) { return std::string(status.message()); }

// Whether the file itself is wrong. Whatever else keeps a file from being read may pass, or an operator can mend it.
bool IsDamage(const absl::Status& status) { return absl::IsDataLoss(status) || absl::IsInvalidArgument(status); }

}  // namespace

absl::StatusOr<std::unique_ptr<LayerStorage>> LayerStorage::Open(Options options, Log& log) {
  std::unique_ptr<LayerStorage> storage(new LayerStorage(std::move(options), log));
  if (storage->options_.data_dir.empty()) return storage;
  if (absl::Status opened = storage->OpenFolders(); !opened.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("--data-dir=", storage->options_.data_dir, ": ", opened.message()));
  }
  return storage;
}

absl::Status LayerStorage::OpenFolders() {
  absl::StatusOr<Folder> root = Folder::Open(options_.data_dir);
  if (!root.ok()) return root.status();
  root_ = *std::move(root);
  if (absl::Status locked = root_.Lock(); !locked.ok()) return locked;
  absl::StatusOr<Folder> layers = root_.OpenFolder(kLayersFolder);
  if (!layers.ok()) return layers.status();
  layers_ = *std::move(layers);
  return absl::OkStatus();
}

void LayerStorage::CountQuarantine() {
  const absl::StatusOr<Folder> quarantine = root_.OpenFolder(kQuarantineFolder, /*make=*/false);
  if (absl::IsNotFound(quarantine.status())) return;
  const absl::StatusOr<std::vector<std::string>> files = quarantine.ok() ? quarantine->List() : quarantine.status();
  if (!files.ok()) {
    log_.Warning("--max-data-dir-bytes does not count the quarantine", {{"reason", Text(files.status())}});
    return;
  }
  for (const std::string& file : *files) quota_.Add(quarantine->SizeOf(file));
}

absl::Status LayerStorage::LoadAll(absl::FunctionRef<absl::Status(const StoredLayer&)> load) {
  if (options_.data_dir.empty()) return absl::OkStatus();
  absl::StatusOr<std::vector<std::string>> files = layers_.List();
  if (!files.ok()) return files.status();
  std::sort(files->begin(), files->end());
  for (const std::string& file : *files) quota_.Add(layers_.SizeOf(file));
  CountQuarantine();
  for (const std::string& file : *files) {
    if (absl::EndsWith(file, absl::string_view(kTemporarySuffix.data(), kTemporarySuffix.size()))) {
      RemoveTemporary(file);
      continue;
    }
    if (absl::Status loaded = LoadFile(file, load); !loaded.ok()) return loaded;
  }
  return absl::OkStatus();
}

absl::Status LayerStorage::LoadFile(const std::string& file, absl::FunctionRef<absl::Status(const StoredLayer&)> load) {
  const absl::StatusOr<StoredLayer> layer = ReadLayerFile(layers_, file);
  absl::Status loaded = layer.ok() ? load(*layer) : layer.status();
  if (loaded.ok()) return loaded;
  if (IsDamage(loaded)) {
    Quarantine(file, loaded);
    return absl::OkStatus();
  }
  if (layer.ok()) return loaded;
  return absl::Status(loaded.code(), absl::StrCat("--data-dir=", options_.data_dir, ": ", kLayersFolder, "/", file,
                                                  ": ", loaded.message(), kNotDamage));
}

void LayerStorage::RemoveTemporary(const std::string& file) {
  const std::int64_t bytes = layers_.SizeOf(file);
  const absl::Status removed = layers_.Remove(file);
  if (removed.ok()) quota_.Give(bytes);
  if (removed.ok()) {
    log_.Info("an upload that was cut short has been removed", {{"file", file}});
  } else {
    log_.Warning("an upload that was cut short cannot be removed", {{"file", file}, {"reason", Text(removed)}});
  }
}

void LayerStorage::Quarantine(const std::string& file, const absl::Status& why) {
  // The time keeps a second one of the same name from replacing the first.
  const std::string name = absl::StrCat(file, ".", absl::ToUnixNanos(absl::Now()));
  const absl::StatusOr<Folder> quarantine = root_.OpenFolder(kQuarantineFolder);
  const absl::Status moved = quarantine.ok() ? layers_.Rename(file, *quarantine, name) : quarantine.status();
  log_.Error("a file of the data folder is not served",
             {{"file", file},
              {"reason", Text(why)},
              {"quarantine", moved.ok() ? absl::StrCat(kQuarantineFolder, "/", name) : Text(moved)}});
}

absl::StatusOr<NewLayerFile> LayerStorage::Create() {
  if (options_.data_dir.empty()) return NewLayerFile::CreateInMemory();
  const std::string name = absl::StrCat(next_temporary_.fetch_add(1), std::string(kTemporarySuffix));
  return NewLayerFile::Create(layers_, name, quota_, options_.observer);
}

absl::Status LayerStorage::Remove(const LayerKey& key, bool& removed) {
  removed = options_.data_dir.empty();
  if (removed) return absl::OkStatus();
  const std::string file = LayerFileName(key);
  const std::int64_t bytes = layers_.SizeOf(file);
  if (absl::Status status = layers_.Remove(file); !status.ok()) return status;
  removed = true;
  quota_.Give(bytes);
  if (options_.observer) options_.observer(StorageStep::kRemoved);
  if (absl::Status synced = layers_.Sync(); !synced.ok()) return synced;
  if (options_.observer) options_.observer(StorageStep::kRemovalSynced);
  return absl::OkStatus();
}

}  // namespace attend::server
