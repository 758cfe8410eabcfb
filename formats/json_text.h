// JSON files from elsewhere: a model's config.json, an index of shards, a layer.json.
#ifndef ATTEND_FORMATS_JSON_TEXT_H_
#define ATTEND_FORMATS_JSON_TEXT_H_

#include <nlohmann/json.hpp>
#include <string_view>

namespace attend::formats {

// How deep arrays and objects may be nested. Real files have three levels.
inline constexpr int kMaxJsonDepth = 64;

// is_discarded() when `text` is no JSON in UTF-8, or nested deeper than kMaxJsonDepth: copying and writing a value
// takes stack for each level, and a file of one megabyte has room for a million. Never throws.
nlohmann::json ParseJson(std::string_view text);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_JSON_TEXT_H_
