// Certificates that their authorities have revoked (RFC 5280, section 5).
#ifndef ATTEND_FORMATS_FILES_REVOCATION_LIST_H_
#define ATTEND_FORMATS_FILES_REVOCATION_LIST_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "formats/files/tls_files.h"

namespace attend {

// Immutable once read; may be read concurrently.
class RevocationList {
 public:
  // Reads all lists of a PEM file, at least one. Errors: INVALID_ARGUMENT naming flag and file: for a block that is no
  // list, for one that none of `authorities` has signed, for one that is not in force today (its next update has
  // passed) and for one of a kind that is not understood (a critical extension, as deltas have).
  static absl::StatusOr<RevocationList> Read(const PemFile& lists, const PemFile& authorities);

  // Whether the first certificate of `pem` is on a list of its issuer; true as well for what is no certificate.
  bool Has(const std::string& pem) const;

 private:
  struct List;

  std::vector<std::shared_ptr<const List>> lists_;
};

}  // namespace attend

#endif  // ATTEND_FORMATS_FILES_REVOCATION_LIST_H_
