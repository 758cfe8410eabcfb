// Reads JSON of foreign origin: a model's config.json, an index of shards, a layer.json.
#ifndef ATTEND_FORMATS_FILES_JSON_TEXT_H_
#define ATTEND_FORMATS_FILES_JSON_TEXT_H_

#include <nlohmann/json.hpp>
#include <string_view>

#include "absl/status/statusor.h"

namespace attend::formats {

// How deep arrays and objects may be nested. Real files have three levels.
inline constexpr int kMaxJsonDepth = 64;

// The JSON object `text`. NaN, Infinity and -Infinity, which Python writes and JSON does not have, become strings of
// that name: a key with such a value can be skipped, but is no number. Never throws.
//
// Errors: INVALID_ARGUMENT with the position, when `text` is no JSON in UTF-8, no object, has a key twice in one
// object, or is nested deeper than kMaxJsonDepth (copying a value takes stack for each level).
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_FILES_JSON_TEXT_H_
