// Where uploaded layers are kept: the folder of `--data-dir`, or memory alone.
//
//   DATA_DIR/layers/minilm%0.layer    one file for each layer, see layer_file.h and LayerFileName
//   DATA_DIR/layers/7.tmp             an upload under way
//   DATA_DIR/quarantine/              files that were found damaged or foreign; nothing here is ever read
//
// A layer is written under a temporary name, synced and renamed, and the folder is synced: whenever the process or the
// machine stops, the name stands for the old file or the new one, whole.
#ifndef ATTEND_SERVER_LAYER_STORE_LAYER_STORAGE_H_
#define ATTEND_SERVER_LAYER_STORE_LAYER_STORAGE_H_

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/logging.h"
#include "server/layer_store/folder.h"
#include "server/layer_store/layer_file.h"
#include "server/layers/layer_registry.h"

namespace attend::server {

// Thread-safe after LoadAll, except that no two calls may be about the same layer.
class LayerStorage {
 public:
  struct Options {
    std::string data_dir;  // Empty: layers are kept in memory.
    // The value of --max-data-dir-bytes. What is there at the start counts and is kept, also beyond it.
    std::int64_t max_bytes = std::numeric_limits<std::int64_t>::max();
    StorageObserver observer;
  };

  // Opens the folder, made when missing, and locks it against other servers. `log` must outlive the object. Errors:
  // INVALID_ARGUMENT or FAILED_PRECONDITION naming the flag.
  static absl::StatusOr<std::unique_ptr<LayerStorage>> Open(Options options, Log& log);

  // Removes what uploads left behind, then reads every file and hands it to `load`. A file that is damaged or foreign,
  // or that `load` returns DATA_LOSS or INVALID_ARGUMENT for, is moved to the quarantine, with a line in the log. Any
  // other error is returned, and the file stays: of `load`, or FAILED_PRECONDITION naming the file that cannot be read.
  // REQUIRES: called at most once, before anything else.
  absl::Status LoadAll(absl::FunctionRef<absl::Status(const StoredLayer&)> load);

  // The bytes of all files, of uploads under way and of the quarantine included.
  std::int64_t used_bytes() const { return quota_.used_bytes(); }

  // Remove of a layer that is not there does nothing. Errors: those of StorageError; when only the folder could not be
  // synced, `removed` says that the file is gone.
  absl::StatusOr<NewLayerFile> Create();
  absl::Status Remove(const LayerKey& key, bool& removed);

 private:
  LayerStorage(Options options, Log& log) : options_(std::move(options)), log_(log), quota_(options_.max_bytes) {}
  absl::Status OpenFolders();
  void CountQuarantine();
  absl::Status LoadFile(const std::string& file, absl::FunctionRef<absl::Status(const StoredLayer&)> load);
  void RemoveTemporary(const std::string& file);
  void Quarantine(const std::string& file, const absl::Status& why);

  const Options options_;
  Log& log_;
  Folder root_;
  Folder layers_;
  DiskQuota quota_;
  std::atomic<std::int64_t> next_temporary_{0};
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYER_STORE_LAYER_STORAGE_H_
