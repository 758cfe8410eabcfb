// What a layer may be called.
//
// Pure functions; may be called concurrently.
#ifndef ATTEND_SERVER_LAYERS_LAYER_NAME_H_
#define ATTEND_SERVER_LAYERS_LAYER_NAME_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace attend::server {

inline constexpr std::size_t kMaxLayerNameBytes = 128;

// OK when `name` matches `[a-z0-9][a-z0-9._/-]{0,127}` and contains no `..`, no `//` and no `/` at its end. Errors:
// INVALID_ARGUMENT with `field`, which says what is wrong and shows no byte of `name` that is not plain ASCII.
absl::Status CheckLayerName(std::string_view name, std::string_view field);

// The one file name that stands for a layer: its name with `%`, which no name contains, in place of `/`, and `.layer`
// behind it. It has no `/` and does not start with a dot, so that it is a file of its folder and no other.
// REQUIRES: CheckLayerName is OK.
std::string LayerFileName(std::string_view name);

// NOT_FOUND with reason LAYER_NOT_FOUND, `field`, and the name as metadata `layer_name`. REQUIRES: as LayerFileName.
absl::Status LayerNotFound(std::string_view name, std::string_view field);

}  // namespace attend::server

#endif  // ATTEND_SERVER_LAYERS_LAYER_NAME_H_
