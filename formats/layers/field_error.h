// An error about one field of a layer's configuration, whose path programs can read.
#ifndef ATTEND_FORMATS_LAYERS_FIELD_ERROR_H_
#define ATTEND_FORMATS_LAYERS_FIELD_ERROR_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace attend::formats {

// INVALID_ARGUMENT about `field` (`config.num_heads`). Pure.
absl::Status FieldError(std::string_view field, std::string_view message);

// The field that FieldError attached to `status`; empty when there is none. Pure.
std::string FieldOf(const absl::Status& status);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_LAYERS_FIELD_ERROR_H_
