// Who calls, and what that caller may do.
#ifndef ATTEND_SERVER_IDENTITY_PRINCIPAL_H_
#define ATTEND_SERVER_IDENTITY_PRINCIPAL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/identity/tenant.h"

namespace attend::server {

// A set of roles. Roles are additive; none includes another.
class Roles {
 public:
  constexpr Roles() = default;

  // Attention, layers by name included.
  static constexpr Roles Compute() { return Roles(1); }
  // Creating, replacing and deleting layers.
  static constexpr Roles Layers() { return Roles(2); }
  // Listing layers, and reflection.
  static constexpr Roles Observe() { return Roles(4); }
  static constexpr Roles All() { return Roles(7); }

  constexpr bool empty() const { return bits_ == 0; }
  // Whether the two have a role in common.
  constexpr bool Meets(Roles other) const { return (bits_ & other.bits_) != 0; }
  friend constexpr Roles operator|(Roles a, Roles b) { return Roles(a.bits_ | b.bits_); }
  friend constexpr bool operator==(Roles a, Roles b) { return a.bits_ == b.bits_; }

  // `compute,observe`; `none` when there is none.
  std::string Names() const;
  // From what Names returns, in any order, with spaces around commas. Errors: INVALID_ARGUMENT.
  static absl::StatusOr<Roles> Parse(std::string_view names);

 private:
  constexpr explicit Roles(unsigned bits) : bits_(static_cast<std::uint8_t>(bits)) {}

  std::uint8_t bits_ = 0;
};

// Immutable; shared by the calls that it makes.
struct Principal {
  std::string name;  // `anonymous` for a caller without a credential.
  Roles roles;
  TenantRef tenant;    // Never null.
  AccountRef account;  // Null for one that stands for many callers: each peer then has an account.
};
using PrincipalRef = std::shared_ptr<const Principal>;

}  // namespace attend::server

#endif  // ATTEND_SERVER_IDENTITY_PRINCIPAL_H_
