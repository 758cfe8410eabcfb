// A call as those see it who serve its request or watch it, whatever transport it came by.
//
// Lifetime. Every InboundRef counts, and what the transport itself holds; the last to go deletes the call.
#ifndef ATTEND_SERVER_RPC_INBOUND_CALL_H_
#define ATTEND_SERVER_RPC_INBOUND_CALL_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/identity/authenticator.h"
#include "server/identity/principal.h"
#include "server/rpc/server_timing.h"

namespace attend::server {

// Counts references to a call of the kind `T`, an InboundCall.
template <typename T>
class RefTo {
 public:
  explicit RefTo(T& call) : call_(&call) { call_->Ref(); }
  RefTo(const RefTo& other) : call_(other.call_) {
    if (call_ != nullptr) call_->Ref();
  }
  RefTo(RefTo&& other) noexcept : call_(std::exchange(other.call_, nullptr)) {}
  RefTo& operator=(RefTo other) noexcept {
    std::swap(call_, other.call_);
    return *this;
  }
  ~RefTo() {
    if (call_ != nullptr) call_->Unref();
  }

  T& operator*() const { return *call_; }
  T* operator->() const { return call_; }

 private:
  T* call_;
};

// The accessors may be called from any thread that holds a reference, unless they say otherwise.
class InboundCall {
 public:
  // The last reference deletes a call; nobody else may.
  virtual ~InboundCall() = default;
  InboundCall(const InboundCall&) = delete;
  InboundCall& operator=(const InboundCall&) = delete;

  // Raised when the caller cancelled, is gone, or its deadline passed. Never lowered.
  const std::atomic<bool>& cancelled() const { return cancelled_; }
  // max() when there is none.
  virtual std::chrono::system_clock::time_point deadline() const = 0;
  bool DeadlinePassed() const { return std::chrono::system_clock::now() >= deadline(); }
  // CANCELLED or, when that is why the call was cancelled, DEADLINE_EXCEEDED.
  absl::Status CancelledStatus() const;

  // The full path, for example `/attend.v1.AttentionService/Attend`.
  virtual const std::string& method() const = 0;
  // MethodEntry::id of the method; -1 when the server has no such method.
  int method_id() const { return method_id_; }
  bool is_stream() const { return is_stream_; }
  // Who calls. REQUIRES: the caller was checked. `anonymous` also where nobody is asked.
  const std::string& principal() const;
  // The tenant that the caller belongs to; `shared` where nobody is asked. REQUIRES: as principal.
  const std::string& tenant() const;
  // What the caller holds is counted here; null where nobody is asked. REQUIRES: as principal.
  const AccountRef& account() const { return account_; }
  // `ipv4:127.0.0.1:40000` or the like; costs an allocation.
  virtual std::string peer() const = 0;
  // What the caller sent beside the request under this name, in lower case; empty when nothing.
  virtual std::string_view Metadata(const char* name) const = 0;
  std::int64_t request_bytes() const { return request_bytes_; }
  std::int64_t response_bytes() const { return response_bytes_; }

  // When the metadata arrived. REQUIRES: it has arrived.
  Clock::time_point arrival() const { return arrival_; }
  // Filled in by whoever serves; written by one station at a time.
  CallTiming& timing() { return timing_; }
  const CallTiming& timing() const { return timing_; }

 protected:
  template <typename T>
  friend class RefTo;

  InboundCall() = default;
  void Ref() { refs_.fetch_add(1, std::memory_order_relaxed); }
  void Unref() {
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) Delete();
  }
  // Deletes *this.
  virtual void Delete() = 0;
  // Finds out who calls: principal(), which is set also for a caller who lacks the role, and account(), for a caller
  // who has it. Errors: those of `credentials`; UNAUTHENTICATED, PERMISSION_DENIED.
  absl::Status CheckCaller(Authenticator& authenticator, const absl::StatusOr<Credentials>& credentials, Roles needed);

  int method_id_ = -1;
  bool is_stream_ = false;
  PrincipalRef principal_;  // Null where nobody is asked.
  AccountRef account_;      // Likewise.
  std::atomic<bool> cancelled_{false};
  std::int64_t request_bytes_ = 0;
  std::int64_t response_bytes_ = 0;
  Clock::time_point arrival_;
  CallTiming timing_;

 private:
  std::atomic<int> refs_{1};  // The transport's.
};

using InboundRef = RefTo<InboundCall>;

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_INBOUND_CALL_H_
