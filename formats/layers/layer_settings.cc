#include "formats/layers/layer_settings.h"

#include "absl/strings/cord.h"
#include "absl/types/optional.h"

namespace attend::formats {
namespace {

constexpr char kPayload[] = "attend.formats/field";

}  // namespace

absl::Status FieldError(std::string_view field, std::string_view message) {
  absl::Status status = absl::InvalidArgumentError({message.data(), message.size()});
  status.SetPayload(kPayload, absl::Cord(absl::string_view(field.data(), field.size())));
  return status;
}

std::string FieldOf(const absl::Status& status) {
  const absl::optional<absl::Cord> field = status.GetPayload(kPayload);
  return field ? std::string(*field) : std::string();
}

}  // namespace attend::formats
