#include "client/cli/layers/layer_report.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"

namespace attend::client {
namespace {

using Json = nlohmann::ordered_json;

std::vector<std::string> TypeNames(const v1::Layer& layer) {
  std::vector<std::string> names;
  for (const int type : layer.weight_types()) {
    const std::string& name = v1::DataType_Name(static_cast<v1::DataType>(type));
    names.push_back(name.empty() ? absl::StrCat(type) : std::string(absl::StripPrefix(name, "DATA_TYPE_")));
  }
  return names;
}

std::string ConfigText(const v1::LayerConfig& config) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto printed = google::protobuf::util::MessageToJsonString(config, &text, options);
  return printed.ok() ? text : "{}";
}

Json ToJson(const v1::Layer& layer) {
  return {{"name", layer.name()},
          {"etag", layer.etag()},
          {"config", Json::parse(ConfigText(layer.config()))},
          {"embed_dim", layer.embed_dim()},
          {"context_dim", layer.context_dim()},
          {"head_dim", layer.head_dim()},
          {"value_dim", layer.value_dim()},
          {"output_dim", layer.output_dim()},
          {"has_output_projection", layer.has_output_projection()},
          {"has_bias", layer.has_bias()},
          {"has_query_norm", layer.has_query_norm()},
          {"has_key_norm", layer.has_key_norm()},
          {"has_alibi_slopes", layer.has_alibi_slopes()},
          {"has_sinks", layer.has_sinks()},
          {"weight_types", TypeNames(layer)},
          {"weight_bytes", layer.weight_bytes()},
          {"memory_bytes", layer.memory_bytes()},
          {"sha256", layer.sha256()},
          {"origin", layer.origin()},
          {"create_time_ms", layer.create_time_ms()},
          {"read_only", layer.read_only()},
          {"naming", layer.naming()},
          {"notes", std::vector<std::string>(layer.notes().begin(), layer.notes().end())}};
}

std::string Mebibytes(std::int64_t bytes) {
  return absl::StrFormat("%.4g MiB", static_cast<double>(bytes) / (1 << 20));
}

std::string Heads(const v1::LayerConfig& config) {
  if (config.num_heads() == config.num_kv_heads()) return absl::StrCat(config.num_heads());
  return absl::StrCat(config.num_heads(), "/", config.num_kv_heads());
}

std::string Shape(const v1::Layer& layer) { return absl::StrCat(layer.embed_dim(), " -> ", layer.output_dim()); }

// What the layer does beside projecting and attending.
std::string Extras(const v1::Layer& layer) {
  const std::pair<bool, const char*> all[] = {
      {layer.has_output_projection(), "output projection"},
      {layer.has_bias(), "bias"},
      {layer.config().has_rotary_embedding() && layer.config().rotary_embedding().form() != v1::ROTARY_FORM_NONE,
       "rotary embedding"},
      {layer.has_query_norm(), "query norm"},
      {layer.has_key_norm(), "key norm"},
      {layer.has_alibi_slopes(), "ALiBi"},
      {layer.has_sinks(), "sinks"},
  };
  std::vector<std::string> there;
  for (const auto& [has, name] : all) {
    if (has) there.emplace_back(name);
  }
  return there.empty() ? "nothing" : absl::StrJoin(there, ", ");
}

using Row = std::array<std::string, 7>;

Row RowOf(const v1::Layer& layer) {
  return {layer.name(),
          Shape(layer),
          Heads(layer.config()),
          absl::StrJoin(TypeNames(layer), ","),
          Mebibytes(layer.memory_bytes()),
          layer.naming(),
          layer.origin()};
}

}  // namespace

std::string LayerJson(const v1::Layer& layer) { return ToJson(layer).dump(2) + "\n"; }

std::string LayersJson(const std::vector<v1::Layer>& layers) {
  Json all = Json::array();
  for (const v1::Layer& layer : layers) all.push_back(ToJson(layer));
  return Json{{"layers", std::move(all)}}.dump(2) + "\n";
}

std::string LayerTable(const v1::Layer& layer) {
  const std::pair<const char*, std::string> rows[] = {
      {"name", layer.name()},
      {"etag", layer.etag()},
      {"shape",
       absl::StrCat(Shape(layer),
                    layer.context_dim() == layer.embed_dim() ? "" : absl::StrCat(", context ", layer.context_dim()))},
      {"heads", absl::StrCat(Heads(layer.config()), " of ", layer.head_dim(), ", values of ", layer.value_dim())},
      {"has", Extras(layer)},
      {"weights", absl::StrCat(absl::StrJoin(TypeNames(layer), ", "), ", ", Mebibytes(layer.weight_bytes()))},
      {"memory", Mebibytes(layer.memory_bytes())},
      {"naming", layer.naming()},
      {"origin", absl::StrCat(layer.origin(), layer.read_only() ? " (read-only)" : "")},
      {"sha256", layer.sha256().empty() ? "-" : layer.sha256()},
      {"created",
       absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", absl::FromUnixMillis(layer.create_time_ms()), absl::UTCTimeZone())},
      {"config", ConfigText(layer.config())},
  };
  std::string out;
  for (const auto& [name, value] : rows) absl::StrAppendFormat(&out, "%-9s%s\n", name, value);
  for (const std::string& note : layer.notes()) absl::StrAppendFormat(&out, "%-9s%s\n", "note", note);
  return out;
}

std::string LayersTable(const std::vector<v1::Layer>& layers) {
  std::vector<Row> rows = {{"NAME", "SHAPE", "HEADS", "TYPES", "MEMORY", "NAMING", "ORIGIN"}};
  for (const v1::Layer& layer : layers) rows.push_back(RowOf(layer));
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
