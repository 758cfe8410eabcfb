#include "formats/json_text.h"

namespace attend::formats {

nlohmann::json ParseJson(std::string_view text) {
  bool too_deep = false;
  const auto keep = [&too_deep](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    too_deep = too_deep || depth > kMaxJsonDepth;
    return !too_deep;  // What is not kept is not built either.
  };
  nlohmann::json json = nlohmann::json::parse(text, keep, /*allow_exceptions=*/false);
  return too_deep ? nlohmann::json(nlohmann::json::value_t::discarded) : json;
}

}  // namespace attend::formats
