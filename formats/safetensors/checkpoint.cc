#include "formats/safetensors/checkpoint.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "formats/files/json_text.h"
#include "formats/files/mapped_file.h"

namespace attend::formats {
namespace {

constexpr std::size_t kMaxIndexBytes = std::size_t{16} << 20;
constexpr std::size_t kMaxShards = 1024;

absl::Status Annotate(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

// Whether `name` can only mean a file in the index's own folder.
bool IsPlainFileName(std::string_view name) {
  return absl::EndsWith({name.data(), name.size()}, ".safetensors") && name.find('/') == std::string_view::npos &&
         name.find('\\') == std::string_view::npos && name.find('\0') == std::string_view::npos && name.front() != '.';
}

// Which file each tensor is in, grouped by file.
using ShardMap = std::map<std::string, std::vector<std::string>>;

absl::StatusOr<ShardMap> ParseIndex(const std::string& text) {
  const absl::StatusOr<nlohmann::json> index = ParseJsonObject(text);
  if (!index.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("it is not an index of shards: ", index.status().message()));
  }
  if (!index->contains("weight_map") || !(*index)["weight_map"].is_object()) {
    return absl::InvalidArgumentError("it is not an index of shards: a JSON object with the object `weight_map`");
  }
  ShardMap shards;
  for (const auto& [tensor, shard] : (*index)["weight_map"].items()) {
    const std::string* const file = shard.get_ptr<const std::string*>();
    if (file == nullptr || !IsPlainFileName(*file)) {
      return absl::InvalidArgumentError(
          absl::StrCat("weight_map of '", tensor, "' is not the plain name of a .safetensors file beside the index"));
    }
    shards[*file].push_back(tensor);
    if (shards.size() > kMaxShards) {
      return absl::InvalidArgumentError(absl::StrCat("it names more than ", kMaxShards, " files"));
    }
  }
  return shards;
}

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::FromBytes(std::string_view bytes, std::shared_ptr<const void> owner,
                                                 const SafetensorsLimits& limits) {
  const absl::StatusOr<SafetensorsFile> file = ParseSafetensors(bytes, limits);
  if (!file.ok()) return file.status();
  Checkpoint checkpoint;
  for (const auto& [name, entry] : file->header.tensors) {
    checkpoint.tensors_.emplace(
        name, CheckpointTensor{file->data.data() + entry.begin, entry.dtype, entry.shape, entry.end - entry.begin});
  }
  checkpoint.metadata_ = file->header.metadata;
  checkpoint.memory_ = std::move(owner);
  return checkpoint;
}

absl::StatusOr<Checkpoint> Checkpoint::OpenFile(const std::string& path, const SafetensorsLimits& limits) {
  absl::StatusOr<std::shared_ptr<const MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const std::string_view bytes = (*file)->bytes();
  absl::StatusOr<Checkpoint> checkpoint = FromBytes(bytes, *std::move(file), limits);
  if (!checkpoint.ok()) return Annotate(path, checkpoint.status());
  checkpoint->files_ = {path};
  return checkpoint;
}

absl::Status Checkpoint::TakeFrom(Checkpoint& shard, const std::vector<std::string>& names,
                                  const std::string& index_path) {
  for (const std::string& name : names) {
    if (shard.tensors_.count(name) == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("there is no tensor '", name, "', although ", index_path, " says so"));
    }
  }
  tensors_.merge(shard.tensors_);
  if (shard.tensors_.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("it has the tensor '", shard.tensors_.begin()->first.substr(0, 200),
                                                 "', and so has another file of ", index_path, "; remove one of them"));
}

absl::StatusOr<Checkpoint> Checkpoint::OpenSharded(const std::string& index_path, const SafetensorsLimits& limits) {
  const absl::StatusOr<std::string> text = ReadTextFile(index_path, kMaxIndexBytes);
  if (!text.ok()) return text.status();
  const absl::StatusOr<ShardMap> shards = ParseIndex(*text);
  if (!shards.ok()) return Annotate(index_path, shards.status());
  Checkpoint all;
  std::vector<std::shared_ptr<const void>> files;
  for (const auto& [file, names] : *shards) {
    const std::string path = std::filesystem::path(index_path).replace_filename(file).string();
    absl::StatusOr<Checkpoint> shard = OpenFile(path, limits);
    if (!shard.ok()) return shard.status();
    if (absl::Status status = all.TakeFrom(*shard, names, index_path); !status.ok()) return Annotate(path, status);
    files.push_back(shard->memory_);
    all.files_.push_back(path);
  }
  all.memory_ = std::make_shared<const std::vector<std::shared_ptr<const void>>>(std::move(files));
  return all;
}

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& path, const SafetensorsLimits& limits) {
  if (absl::EndsWith(path, ".index.json")) return OpenSharded(path, limits);
  if (absl::EndsWith(path, ".safetensors")) return OpenFile(path, limits);
  return absl::InvalidArgumentError(absl::StrCat(
      path,
      " is not a checkpoint that can be read: its name must end in .safetensors, or in .index.json for a sharded "
      "one"));
}

}  // namespace attend::formats
