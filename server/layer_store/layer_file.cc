#include "server/layer_store/layer_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "formats/files/mapped_file.h"
#include "server/layers/layer_registry.h"

namespace attend::server {
namespace {

using formats::Sha256;
using formats::ToHex;

constexpr std::string_view kMagic = "attendL\n";
// Version 1 is that of attend 0.1, whose server skips fields of a record that it does not know: it refuses what has 2.
constexpr std::uint32_t kVersion = 2;
constexpr std::uint32_t kOldestVersion = 1;
constexpr std::int64_t kFooterBytes = 64;
constexpr std::int64_t kMaxRecordBytes = 1 << 20;
constexpr std::size_t kHashAt = 32;

// The most pieces that writev(2) takes.
constexpr std::size_t kMaxPieces = 1024;

// The disk begins to write after so many bytes, so that little is left when the last have come and fsync waits.
constexpr std::int64_t kWritebackBytes = std::int64_t{8} << 20;

void PutLittleEndian(std::uint64_t value, int bytes, std::string& out) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

std::uint64_t GetLittleEndian(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<std::uint8_t>(bytes[i]);
  return value;
}

std::string_view Bytes(const Sha256Digest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

std::string MakeFooter(std::int64_t payload_bytes, std::string_view record) {
  std::string footer(kMagic);
  PutLittleEndian(kVersion, 4, footer);
  PutLittleEndian(0, 4, footer);
  PutLittleEndian(static_cast<std::uint64_t>(payload_bytes), 8, footer);
  PutLittleEndian(record.size(), 8, footer);
  footer.append(Bytes(Sha256::Of(record)));
  return footer;
}

absl::Status Damaged(std::string_view what) { return absl::DataLossError(std::string(what)); }

absl::StatusOr<SharedBytes> MapLayerFile(const Folder& folder, const std::string& name) {
  // Before it is opened, because opening a socket or a symbolic link fails, and that error is not one of reading.
  const absl::StatusOr<bool> regular = folder.IsRegularFile(name);
  if (!regular.ok()) return regular.status();
  if (!*regular) return Damaged("it is no regular file");
  const absl::StatusOr<FileDescriptor> fd = folder.OpenFile(name, O_RDONLY | O_NONBLOCK);
  if (!fd.ok()) return fd.status();
  struct stat info {};
  if (fstat(fd->get(), &info) != 0) return ReadError(errno, "cannot look at the file");
  const auto file = formats::MappedFile::Map(fd->get(), static_cast<std::size_t>(info.st_size));
  if (file == nullptr) return ReadError(errno, "cannot map the file");
  return SharedBytes{file, file->bytes()};
}

// What a whole file says about itself.
struct Parts {
  std::string_view payload;
  std::string_view record;
};

absl::StatusOr<Parts> SplitFile(std::string_view file) {
  constexpr auto kFooter = static_cast<std::size_t>(kFooterBytes);
  if (file.size() < kFooter) return Damaged("it is too short for a footer");
  const std::string_view footer = file.substr(file.size() - kFooter);
  if (footer.substr(0, kMagic.size()) != kMagic) return Damaged("it does not end in a layer's footer");
  const std::uint64_t version = GetLittleEndian(footer.substr(8, 4));
  if (version < kOldestVersion || version > kVersion || GetLittleEndian(footer.substr(12, 4)) != 0) {
    return Damaged(
        absl::StrCat("its format has version ", version, ", and this server knows ", kOldestVersion, " to ", kVersion));
  }
  const std::uint64_t payload = GetLittleEndian(footer.substr(16, 8));
  const std::uint64_t record = GetLittleEndian(footer.substr(24, 8));
  const std::uint64_t rest = file.size() - kFooter;
  if (record > kMaxRecordBytes || record > rest || payload != rest - record) {
    return Damaged("its size is not what its footer says");
  }
  Parts parts = {file.substr(0, payload), file.substr(payload, record)};
  if (Bytes(Sha256::Of(parts.record)) != footer.substr(kHashAt)) return Damaged("its record's checksum is wrong");
  return parts;
}

absl::Status CheckRecord(const LayerRecord& record, std::string_view payload, const std::string& file_name) {
  const v1::CreateLayerHeader& header = record.header;
  if (!CheckLayerName(header.name(), "name").ok() || LayerFileName({record.tenant, header.name()}) != file_name) {
    return Damaged("it is the file of another layer");
  }
  const std::string sha256 = header.has_init() ? "" : ToHex(Sha256::Of(payload));
  if (header.sha256() != sha256) return Damaged("its payload's checksum is wrong");
  return absl::OkStatus();
}

}  // namespace

NewLayerFile::NewLayerFile(FileDescriptor fd, const Folder* folder, std::string name, DiskQuota* quota,
                           const StorageObserver* observer)
    : fd_(std::move(fd)), folder_(folder), name_(std::move(name)), quota_(quota), observer_(observer) {}

NewLayerFile::NewLayerFile(NewLayerFile&& other) noexcept
    : fd_(std::move(other.fd_)),
      folder_(other.folder_),
      name_(std::exchange(other.name_, "")),
      quota_(other.quota_),
      observer_(other.observer_),
      hash_(std::move(other.hash_)),
      payload_bytes_(other.payload_bytes_),
      file_bytes_(other.file_bytes_),
      quota_bytes_(std::exchange(other.quota_bytes_, 0)),
      started_bytes_(other.started_bytes_) {}

absl::StatusOr<NewLayerFile> NewLayerFile::Create(const Folder& folder, const std::string& name, DiskQuota& quota,
                                                  const StorageObserver& observer) {
  absl::StatusOr<FileDescriptor> fd = folder.OpenFile(name, O_RDWR | O_CREAT | O_EXCL);
  if (!fd.ok()) return fd.status();
  NewLayerFile file(*std::move(fd), &folder, name, &quota, &observer);
  file.Observe(StorageStep::kCreated);
  return file;
}

absl::StatusOr<NewLayerFile> NewLayerFile::CreateInMemory() {
  FileDescriptor fd(memfd_create("attend-layer", MFD_CLOEXEC));
  if (fd.get() < 0) return StorageError(errno, "cannot take memory for the layer");
  return NewLayerFile(std::move(fd), nullptr, "", nullptr, nullptr);
}

NewLayerFile::~NewLayerFile() {
  // What cannot be removed now is removed at the server's next start.
  if (!name_.empty()) (void)folder_->Remove(name_);
  if (quota_bytes_ > 0) quota_->Give(quota_bytes_);
}

void NewLayerFile::Observe(StorageStep step) const {
  if (observer_ != nullptr && *observer_) (*observer_)(step);
}

absl::StatusOr<SharedBytes> NewLayerFile::Map() const {
  const auto file = formats::MappedFile::Map(fd_.get(), static_cast<std::size_t>(payload_bytes_));
  if (file == nullptr) return StorageError(errno, "cannot map the file");
  return SharedBytes{file, file->bytes()};
}

absl::Status NewLayerFile::Append(absl::Span<const std::string_view> pieces) {
  if (absl::Status written = WriteAll(pieces); !written.ok()) return written;
  for (const std::string_view piece : pieces) hash_.Update(piece);
  payload_bytes_ = file_bytes_;
  StartWriteback();
  Observe(StorageStep::kChunkWritten);
  return absl::OkStatus();
}

void NewLayerFile::StartWriteback() {
  if (!on_disk() || file_bytes_ - started_bytes_ < kWritebackBytes) return;
  // A wish alone: fsync reports what goes wrong.
  (void)sync_file_range(fd_.get(), started_bytes_, file_bytes_ - started_bytes_, SYNC_FILE_RANGE_WRITE);
  started_bytes_ = file_bytes_;
}

absl::Status NewLayerFile::TakeQuota(absl::Span<const std::string_view> pieces) {
  if (quota_ == nullptr) return absl::OkStatus();
  std::int64_t bytes = 0;
  for (const std::string_view piece : pieces) bytes += static_cast<std::int64_t>(piece.size());
  if (absl::Status taken = quota_->Take(bytes); !taken.ok()) return taken;
  quota_bytes_ += bytes;
  return absl::OkStatus();
}

absl::Status NewLayerFile::WriteAll(absl::Span<const std::string_view> pieces) {
  if (absl::Status taken = TakeQuota(pieces); !taken.ok()) return taken;
  std::vector<iovec> vectors;
  vectors.reserve(pieces.size());
  for (const std::string_view piece : pieces) {
    if (!piece.empty()) vectors.push_back({const_cast<char*>(piece.data()), piece.size()});
  }
  for (std::size_t next = 0; next < vectors.size();) {
    const std::size_t count = std::min(vectors.size() - next, kMaxPieces);
    const ssize_t written = pwritev(fd_.get(), &vectors[next], static_cast<int>(count), file_bytes_);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return StorageError(errno, "cannot write the layer");
    file_bytes_ += written;
    // What was written in part goes on where it stopped.
    auto left = static_cast<std::size_t>(written);
    for (; next < vectors.size() && left >= vectors[next].iov_len; ++next) left -= vectors[next].iov_len;
    if (next == vectors.size()) break;
    vectors[next].iov_base = static_cast<char*>(vectors[next].iov_base) + left;
    vectors[next].iov_len -= left;
  }
  return absl::OkStatus();
}

absl::Status NewLayerFile::Seal(const LayerRecord& record) {
  if (!on_disk()) return absl::OkStatus();
  const absl::StatusOr<std::string> bytes = SerializeRecord(record);
  if (!bytes.ok()) return bytes.status();
  const std::string footer = MakeFooter(payload_bytes_, *bytes);
  if (absl::Status written = WriteAll({std::string_view(*bytes), std::string_view(footer)}); !written.ok()) {
    return written;
  }
  Observe(StorageStep::kSealed);
  if (fsync(fd_.get()) != 0) return StorageError(errno, "cannot write the layer");
  Observe(StorageStep::kSynced);
  return absl::OkStatus();
}

absl::Status NewLayerFile::Publish(const std::string& name, bool& renamed) {
  renamed = !on_disk();
  if (renamed) return absl::OkStatus();
  const std::int64_t replaced_bytes = folder_->SizeOf(name);
  if (absl::Status status = folder_->Rename(name_, *folder_, name); !status.ok()) return status;
  renamed = true;
  name_.clear();
  quota_->Give(replaced_bytes);
  quota_bytes_ = 0;  // The file keeps them.
  Observe(StorageStep::kRenamed);
  if (absl::Status status = folder_->Sync(); !status.ok()) return status;
  Observe(StorageStep::kFolderSynced);
  return absl::OkStatus();
}

absl::StatusOr<StoredLayer> ReadLayerFile(const Folder& folder, const std::string& name) {
  absl::StatusOr<SharedBytes> file = MapLayerFile(folder, name);
  if (!file.ok()) return file.status();
  const absl::StatusOr<Parts> parts = SplitFile(file->bytes);
  if (!parts.ok()) return parts.status();
  absl::StatusOr<LayerRecord> record = ParseRecord(parts->record);
  if (!record.ok()) return record.status();
  if (absl::Status status = CheckRecord(*record, parts->payload, name); !status.ok()) return status;
  return StoredLayer{*std::move(record), {std::move(file->memory), parts->payload}};
}

}  // namespace attend::server
