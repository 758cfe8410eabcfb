// Bytes out of files, with every length checked and every failure said. Writing: formats/files/file_writer.h.
#ifndef ATTEND_CLIENT_IO_STREAM_H_
#define ATTEND_CLIENT_IO_STREAM_H_

#include <cstdint>
#include <fstream>
#include <istream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attend::client {

// Whether reading `in` ended because it failed, and not at its end. std::cin reads by way of stdio, where an error
// looks like the end: whoever reads std::cin asks before using the last that was read, which may be a part of a line.
bool ReadFailed(const std::istream& in);

// Exactly `size` bytes of `in`. Memory grows with what really arrives, so a lying length costs nothing. Errors:
// DATA_LOSS when the stream ends early or cannot be read, with a sentence that names `what`.
absl::StatusOr<std::string> ReadExactly(std::istream& in, std::int64_t size, const std::string& what);

// An open file. Errors: NOT_FOUND when it cannot be opened.
absl::StatusOr<std::ifstream> OpenFile(const std::string& path);

// The whole of a small file (a token). Errors: NOT_FOUND; INVALID_ARGUMENT when larger than `max_bytes`; DATA_LOSS when
// reading fails.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, std::int64_t max_bytes);

// `status` with `path: ` before its message.
absl::Status Annotate(const std::string& path, const absl::Status& status);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_IO_STREAM_H_
