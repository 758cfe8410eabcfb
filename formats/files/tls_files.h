// Checks TLS certificates and keys in PEM files: whether a handshake with them can succeed.
//
// OpenSSL and gRPC accept most of the mistakes that are found here, and then every handshake fails.
#ifndef ATTEND_FORMATS_FILES_TLS_FILES_H_
#define ATTEND_FORMATS_FILES_TLS_FILES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attend {

// A PEM file and the flag that named it.
struct PemFile {
  std::string flag;  // `--tls-cert`
  std::string path;
  std::string contents;
};

// Reads a file of at most 1 MiB. Errors: INVALID_ARGUMENT naming flag and path when it cannot be read, is empty,
// larger, or holds no PEM block. May be called concurrently, as the functions below, which are pure but for the clock.
absl::StatusOr<PemFile> ReadPemFile(const std::string& flag, const std::string& path);

// Whether the two can identify a peer: a chain whose first certificate is the owner's, in force today, and its private
// key, not encrypted, both strong enough for OpenSSL. Of the rest of the chain only the form is checked. Errors:
// INVALID_ARGUMENT with a sentence that names flags and files.
absl::Status CheckIdentity(const PemFile& chain, const PemFile& key);

// When the first certificate of `chain` expires, in seconds since 1970. Errors: INVALID_ARGUMENT when there is none
// that can be read.
absl::StatusOr<std::int64_t> CertificateExpiry(const PemFile& chain);

// Whether the file holds the certificates of authorities: at least one, all of them readable, one of them in force
// today. Errors: as above.
absl::Status CheckAuthorities(const PemFile& authorities);

}  // namespace attend

#endif  // ATTEND_FORMATS_FILES_TLS_FILES_H_
