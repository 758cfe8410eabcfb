// Reads the members of a ZIP archive and writes archives, as far as NumPy's .npz files need it: stored and deflated
// members, ZIP64, no encryption.
//
// Format: APPNOTE.TXT of PKWARE, 6.3. Every offset, length and checksum is checked, and memory grows only with bytes
// that are there: a member cannot claim more than deflate can make of its bytes.
#ifndef ATTEND_CLIENT_IO_ZIP_H_
#define ATTEND_CLIENT_IO_ZIP_H_

#include <cstdint>
#include <istream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace attend::client {

struct ZipMember {
  std::string name;
  int method = 0;  // 0: stored, 8: deflated.
  std::uint32_t crc32 = 0;
  std::int64_t packed_bytes = 0;
  std::int64_t bytes = 0;
  std::int64_t offset = 0;  // Of its local header.
};

// Thread-compatible; move-only.
class ZipReader {
 public:
  // Reads the archive's directory. Errors: INVALID_ARGUMENT when it is no ZIP archive, or its directory is malformed or
  // has two members of one name; DATA_LOSS when it ends too early. REQUIRES: `in` can seek.
  static absl::StatusOr<ZipReader> Create(std::unique_ptr<std::istream> in);

  // In the archive's order.
  const std::vector<ZipMember>& members() const { return members_; }

  // The contents of one of members(). Errors: INVALID_ARGUMENT for encryption, another method, sizes that cannot be;
  // DATA_LOSS when bytes are missing or the checksum differs.
  absl::StatusOr<std::string> Read(const ZipMember& member);

 private:
  ZipReader(std::unique_ptr<std::istream> in, std::vector<ZipMember> members)
      : in_(std::move(in)), members_(std::move(members)) {}

  std::unique_ptr<std::istream> in_;
  std::vector<ZipMember> members_;
};

// An archive of stored members, {name, contents}, in the given order; the same bytes for the same members. Errors:
// INVALID_ARGUMENT when it would be 4 GiB or larger.
absl::StatusOr<std::string> FormatZip(const std::vector<std::pair<std::string, std::string>>& members);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_IO_ZIP_H_
