// LayerTable and LayersTable of layer_tables.h: layers in the server.

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "client/text/layer_tables.h"

namespace attend::client {
namespace {

using Row = std::array<std::string, 7>;

std::string Heads(const v1::LayerConfig& config) {
  if (config.num_heads() == config.num_kv_heads()) return absl::StrCat(config.num_heads());
  return absl::StrCat(config.num_heads(), "/", config.num_kv_heads());
}

std::string Shape(const v1::Layer& layer) { return absl::StrCat(layer.embed_dim(), " -> ", layer.output_dim()); }

// What the layer does beside projecting and attending: its fields `has_...`, and rotation.
std::string Extras(const v1::Layer& layer, const Json& json) {
  std::vector<std::string> there;
  for (const auto& [name, value] : json.items()) {
    if (absl::StartsWith(name, "has_") && value == true)
      there.push_back(absl::StrReplaceAll(name.substr(4), {{"_", " "}}));
  }
  const v1::LayerConfig& config = layer.config();
  if (config.has_rotary_embedding() && config.rotary_embedding().form() != v1::ROTARY_FORM_NONE) {
    there.emplace_back("rotary embedding");
  }
  return there.empty() ? "nothing" : absl::StrJoin(there, ", ");
}

// From `create_time`, or from the milliseconds that older servers send alone.
std::string Created(const Json& layer) {
  if (const auto time = layer.find("create_time"); time != layer.end() && time->is_string()) return *time;
  const absl::Time created = absl::FromUnixMillis(layer.value("create_time_ms", std::int64_t{0}));
  return absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", created, absl::UTCTimeZone());
}

}  // namespace

std::string LayerTable(const v1::Layer& layer) {
  const Json json = ToJson(layer, 1);
  const std::string context =
      layer.context_dim() == layer.embed_dim() ? "" : absl::StrCat(", context ", layer.context_dim());
  Rows rows = {
      {"name", layer.name()},
      {"etag", layer.etag()},
      {"shape", absl::StrCat(Shape(layer), context)},
      {"heads", absl::StrCat(Heads(layer.config()), " of ", layer.head_dim(), ", values of ", layer.value_dim())},
      {"has", Extras(layer, json)},
      {"weights", absl::StrCat(JoinStrings(json["weight_types"]), ", ", FormatBytes(layer.weight_bytes()))},
      {"memory", FormatBytes(layer.memory_bytes())},
      {"naming", layer.naming()},
      {"origin", absl::StrCat(layer.origin(), layer.read_only() ? " (read-only)" : "")},
      {"sha256", layer.sha256().empty() ? "-" : layer.sha256()},
      {"created", Created(json)},
      {"config", json["config"].dump()},
  };
  for (const std::string& note : layer.notes()) rows.emplace_back("note", note);
  return FormatRows(rows);
}

std::string LayersTable(const std::vector<v1::Layer>& layers) {
  std::vector<Row> rows = {{"NAME", "SHAPE", "HEADS", "TYPES", "MEMORY", "NAMING", "ORIGIN"}};
  for (const v1::Layer& layer : layers) {
    rows.push_back({layer.name(), Shape(layer), Heads(layer.config()), JoinStrings(ToJson(layer, 1)["weight_types"]),
                    FormatBytes(layer.memory_bytes()), layer.naming(), layer.origin()});
  }
  std::array<int, std::tuple_size_v<Row>> widths{};
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], static_cast<int>(row[i].size()));
  }
  std::string out;
  for (const Row& row : rows) {
    for (std::size_t i = 0; i + 1 < row.size(); ++i) absl::StrAppendFormat(&out, "%-*s  ", widths[i], row[i]);
    absl::StrAppend(&out, row.back(), "\n");
  }
  return out;
}

}  // namespace attend::client
