// The tensors of a checkpoint by name, wherever they are: one .safetensors file, the files of a sharded model, or bytes
// in memory (an upload).
#ifndef ATTEND_FORMATS_SAFETENSORS_CHECKPOINT_H_
#define ATTEND_FORMATS_SAFETENSORS_CHECKPOINT_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "formats/safetensors/safetensors_header.h"

namespace attend::formats {

// One tensor where it lies, which may be at any address: look at its alignment before its numbers.
struct CheckpointTensor {
  const void* data = nullptr;
  std::string dtype;  // As the format writes it: `F32`, `BF16`, `I64`, ...
  std::vector<std::int64_t> shape;
  std::int64_t bytes = 0;
};

// Immutable; may be shared between threads. Tensors are views; memory() keeps alive what they point to.
class Checkpoint {
 public:
  // A path that ends in `.safetensors` is one file, mapped. One that ends in `.index.json` lists the files of a sharded
  // model (`weight_map`: tensor -> file); each is mapped and its header read once. A file of a shard is a plain name
  // beside the index: neither `/` nor `..`. All its tensors are taken, as transformers does, also those that the index
  // does not name: they may be part of a layer. Errors, with the path: NOT_FOUND; INVALID_ARGUMENT, also for a tensor
  // that two files have; DATA_LOSS when a file ends too early.
  static absl::StatusOr<Checkpoint> Open(const std::string& path, const SafetensorsLimits& limits = {});

  // The bytes of a .safetensors file, which `owner` keeps alive. Errors: those of ParseSafetensors.
  static absl::StatusOr<Checkpoint> FromBytes(std::string_view bytes, std::shared_ptr<const void> owner,
                                              const SafetensorsLimits& limits = {});

  // In ascending order of their names' bytes.
  const std::map<std::string, CheckpointTensor, std::less<>>& tensors() const { return tensors_; }

  // Null when there is none.
  const CheckpointTensor* Find(std::string_view name) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : &found->second;
  }

  // `__metadata__`; of a sharded model what its files agree on is not known, so it has none.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // The files that its tensors are from, in no order; none when it was made of bytes.
  const std::vector<std::string>& files() const { return files_; }

  const std::shared_ptr<const void>& memory() const { return memory_; }

 private:
  Checkpoint() = default;
  static absl::StatusOr<Checkpoint> OpenFile(const std::string& path, const SafetensorsLimits& limits);
  static absl::StatusOr<Checkpoint> OpenSharded(const std::string& index_path, const SafetensorsLimits& limits);
  // Moves all tensors of `shard`, which must have `names`.
  absl::Status TakeFrom(Checkpoint& shard, const std::vector<std::string>& names, const std::string& index_path);

  std::map<std::string, CheckpointTensor, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::string> files_;
  std::shared_ptr<const void> memory_;
};

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_SAFETENSORS_CHECKPOINT_H_
