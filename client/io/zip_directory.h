// The directory at the end of a ZIP archive.
#ifndef ATTEND_CLIENT_IO_ZIP_DIRECTORY_H_
#define ATTEND_CLIENT_IO_ZIP_DIRECTORY_H_

#include <cstdint>
#include <istream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "client/io/zip.h"

namespace attend::client {

// The little-endian number of `size` bytes at `at`. REQUIRES: they are there.
std::uint64_t ZipNumber(std::string_view bytes, std::size_t at, int size);

// `size` bytes of `in` from `offset` on. Errors: DATA_LOSS naming `what`.
absl::StatusOr<std::string> ReadZipBytes(std::istream& in, std::int64_t offset, std::int64_t size,
                                         const std::string& what);

// All members. Errors: as ZipReader::Create.
absl::StatusOr<std::vector<ZipMember>> ReadZipDirectory(std::istream& in);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_IO_ZIP_DIRECTORY_H_
