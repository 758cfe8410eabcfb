// Reads the files of TLS again, for both doors.
#ifndef ATTEND_SERVER_TLS_RELOAD_H_
#define ATTEND_SERVER_TLS_RELOAD_H_

#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace attend::server {

// Thread-compatible.
class TlsReload {
 public:
  // `pair` reads the operator's files: true when others are in force now (TlsPair). `door` takes what is in force
  // (HttpTls); empty: there is none.
  TlsReload(std::function<absl::StatusOr<bool>()> pair, std::function<absl::Status()> door)
      : pair_(std::move(pair)), door_(std::move(door)) {}

  // True when others are in force now. The door may fail, without descriptors for example: it is asked again each time
  // until it has what is in force. Errors: those of the two.
  absl::StatusOr<bool> Run() {
    absl::StatusOr<bool> read = pair_();
    if (read.ok() && *read) door_is_behind_ = true;
    if (!door_ || !door_is_behind_) return read;
    if (absl::Status taken = door_(); !taken.ok()) return read.ok() ? taken : Both(read.status(), taken);
    door_is_behind_ = false;
    return read.ok() ? true : read;
  }

  // Whether the door has older ones than gRPC, which has those that are in force.
  bool door_is_behind() const { return door_is_behind_; }

 private:
  static absl::Status Both(const absl::Status& read, const absl::Status& taken) {
    return {read.code(), absl::StrCat(read.message(), "; the HTTP door: ", taken.message())};
  }

  const std::function<absl::StatusOr<bool>()> pair_;
  const std::function<absl::Status()> door_;
  bool door_is_behind_ = false;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_TLS_RELOAD_H_
