// The SHA-256 of a file, with which an upload proves that it has arrived.
#ifndef ATTEND_CLIENT_CLI_LAYERS_SHA256_H_
#define ATTEND_CLIENT_CLI_LAYERS_SHA256_H_

#include <string>

#include "absl/status/statusor.h"

namespace attend::client {

// In lower-case hexadecimal (FIPS 180-4). Reads the whole file, a piece at a time. Errors: NOT_FOUND when it cannot be
// opened; DATA_LOSS when reading fails.
absl::StatusOr<std::string> Sha256OfFile(const std::string& path);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_LAYERS_SHA256_H_
