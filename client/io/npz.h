// Reads and writes .npz files, NumPy's format for several named arrays: a ZIP archive (client/io/zip.h) with a .npy
// file for each, as np.savez (stored) and np.savez_compressed (deflated) write it.
#ifndef ATTEND_CLIENT_IO_NPZ_H_
#define ATTEND_CLIENT_IO_NPZ_H_

#include <istream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/io/zip.h"
#include "client/lib/tensor.h"

namespace attend::client {

// Thread-compatible; move-only.
class NpzReader {
 public:
  // Errors: NOT_FOUND; those of ZipReader, with the path.
  static absl::StatusOr<NpzReader> Open(const std::string& path);

  // The same for any stream that can seek. `name` is used in messages.
  static absl::StatusOr<NpzReader> Create(std::unique_ptr<std::istream> in, const std::string& name);

  // Errors: NOT_FOUND, listing the names there are; those of ZipReader::Read and ReadNpy, with the file's name.
  absl::StatusOr<Tensor> Read(const std::string& name);

  // Of the arrays, in the file's order, without `.npy`.
  std::vector<std::string> Names() const;

 private:
  NpzReader(ZipReader archive, std::string name) : archive_(std::move(archive)), name_(std::move(name)) {}

  ZipReader archive_;
  std::string name_;
};

// The contents of a .npz file with `tensors` in the given order. Errors: as FormatNpy and FormatZip.
absl::StatusOr<std::string> FormatNpz(absl::Span<const NamedTensor> tensors);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_IO_NPZ_H_
