#include "server/config/start_settings.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/config/transport_settings.h"

namespace attend::server {
namespace {

absl::StatusOr<InstructionSet> ChooseInstructionSet(const std::string& name) {
  if (name == "auto") return BestInstructionSet();
  const std::vector<InstructionSet> supported = SupportedInstructionSets();
  const std::optional<InstructionSet> chosen = ParseInstructionSet(name);
  if (chosen.has_value() && std::find(supported.begin(), supported.end(), *chosen) != supported.end()) return *chosen;
  std::string names;
  for (const InstructionSet set : supported) absl::StrAppend(&names, " ", std::string(InstructionSetName(set)));
  return absl::InvalidArgumentError(
      absl::StrCat("--instruction-set: this machine does not run ", name, "; it runs", names));
}

}  // namespace

absl::StatusOr<StartSettings> ResolveStartSettings(const ServerConfig& config) {
  const absl::StatusOr<InstructionSet> instruction_set = ChooseInstructionSet(config.instruction_set);
  if (!instruction_set.ok()) return instruction_set.status();
  auto credentials = MakeCredentials(config.tls);
  if (!credentials.ok()) return credentials.status();
  return StartSettings{*instruction_set, *std::move(credentials)};
}

}  // namespace attend::server
