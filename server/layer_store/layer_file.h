// The file of one uploaded layer: how it is written and how it is read again.
//
//   payload   the bytes of the .safetensors file, from offset 0, so that they can be mapped and used where they are
//   record    a serialized attend.storage.v1.LayerRecord
//   footer    64 bytes: the magic `attendL\n`, the format's version (2) as u32, zero as u32, the payload's and the
//   record's
//             sizes as u64, all little-endian, and the SHA-256 of the record
//
// The record has the payload's SHA-256. So every bit of the file is covered, a file that ends too early has no footer,
// and a reader needs no more than the file's size to find everything.
#ifndef ATTEND_SERVER_LAYER_STORE_LAYER_FILE_H_
#define ATTEND_SERVER_LAYER_STORE_LAYER_FILE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "formats/files/sha256.h"
#include "server/layer_store/disk_quota.h"
#include "server/layer_store/folder.h"
#include "server/layer_store/layer_record.h"

namespace attend::server {

using formats::Sha256Digest;

// What has just been done to the data folder. The order of an upload is that of the first six, of a deletion that of
// the last two.
enum class StorageStep : std::uint8_t {
  kCreated,        // An empty temporary file is there.
  kChunkWritten,   // More bytes were given to the kernel.
  kSealed,         // Record and footer too.
  kSynced,         // All of it survives a loss of power, under its temporary name.
  kRenamed,        // It is there under its own name.
  kFolderSynced,   // This too survives a loss of power.
  kRemoved,        // A layer's file is gone.
  kRemovalSynced,  // And does not come back.
};

// For tests, which look at the folder or end the process at a step; called on the thread that does it. Empty: nobody.
using StorageObserver = std::function<void(StorageStep)>;

// Bytes of a mapped file. Copyable; the bytes live as long as one copy of `memory`.
struct SharedBytes {
  std::shared_ptr<const void> memory;
  std::string_view bytes;
};

// A layer's file while it is written. Until it is renamed it has a temporary name, or none (memory alone), and is gone
// when this object is.
//
// Thread-compatible.
class NewLayerFile {
 public:
  // In `folder`, under the name `name`, which ends in kTemporarySuffix. What is written is taken from `quota`. All but
  // `name` must outlive the object.
  static absl::StatusOr<NewLayerFile> Create(const Folder& folder, const std::string& name, DiskQuota& quota,
                                             const StorageObserver& observer);
  // In memory: for servers without a data folder.
  static absl::StatusOr<NewLayerFile> CreateInMemory();

  NewLayerFile(NewLayerFile&& other) noexcept;
  NewLayerFile& operator=(NewLayerFile&&) = delete;
  ~NewLayerFile();

  // Appends to the payload. Errors: those of StorageError and DiskQuota. REQUIRES: not sealed.
  absl::Status Append(absl::Span<const std::string_view> pieces);

  std::int64_t payload_bytes() const { return payload_bytes_; }
  // Whether it is kept as a file, rather than in this process's memory.
  bool on_disk() const { return folder_ != nullptr; }

  // The payload. REQUIRES: no Append after it.
  absl::StatusOr<SharedBytes> Map() const;
  // The payload's SHA-256. REQUIRES: called at most once; no Append after it.
  Sha256Digest FinishHash() { return hash_.Finish(); }

  // Writes record and footer and makes all of it survive a loss of power. Nothing happens in memory. Errors: those of
  // SerializeRecord and StorageError.
  absl::Status Seal(const LayerRecord& record);

  // Gives a sealed file its own name, in place of the file that has it. In memory there is nothing to do. Errors: those
  // of StorageError; when only the folder could not be synced, `renamed` says that the new file is there.
  absl::Status Publish(const std::string& name, bool& renamed);

 private:
  NewLayerFile(FileDescriptor fd, const Folder* folder, std::string name, DiskQuota* quota,
               const StorageObserver* observer);
  absl::Status TakeQuota(absl::Span<const std::string_view> pieces);
  void Observe(StorageStep step) const;
  absl::Status WriteAll(absl::Span<const std::string_view> pieces);
  // Has the disk begin with what the kernel was given since the last time, if that is enough to be worth it.
  void StartWriteback();

  FileDescriptor fd_;
  const Folder* folder_;  // Null in memory.
  std::string name_;      // Empty when there is no file to remove.
  DiskQuota* quota_;      // Null in memory.
  const StorageObserver* observer_;
  formats::Sha256 hash_;
  std::int64_t payload_bytes_ = 0;
  std::int64_t file_bytes_ = 0;
  std::int64_t quota_bytes_ = 0;    // Those taken from the quota,
  std::int64_t started_bytes_ = 0;  // and those that the disk has been told to write.
};

inline constexpr std::string_view kTemporarySuffix = ".tmp";

// A layer's file that was found whole.
struct StoredLayer {
  LayerRecord record;
  SharedBytes payload;
};

// Reads a file and checks every byte of it. Errors: DATA_LOSS that says what is wrong with the file; those of
// ReadError, which say nothing about what is in it.
absl::StatusOr<StoredLayer> ReadLayerFile(const Folder& folder, const std::string& name);

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYER_STORE_LAYER_FILE_H_
