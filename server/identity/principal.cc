#include "server/identity/principal.h"

#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace attend::server {
namespace {

constexpr std::pair<const char*, Roles> kRoles[] = {
    {"compute", Roles::Compute()}, {"layers", Roles::Layers()}, {"observe", Roles::Observe()}};
constexpr char kNone[] = "none";

}  // namespace

std::string Roles::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, role] : kRoles) {
    if (Meets(role)) names.emplace_back(name);
  }
  return names.empty() ? kNone : absl::StrJoin(names, ",");
}

absl::StatusOr<Roles> Roles::Parse(std::string_view names) {
  Roles roles;
  const absl::string_view text = absl::StripAsciiWhitespace({names.data(), names.size()});
  if (text == kNone) return roles;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    Roles found;
    for (const auto& [name, role] : kRoles) {
      if (absl::StripAsciiWhitespace(part) == name) found = role;
    }
    if (found.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", part, "' is no role; there are compute, layers and observe, or none instead of a list"));
    }
    roles = roles | found;
  }
  return roles;
}

}  // namespace attend::server
