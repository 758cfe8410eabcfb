// CheckJson and CheckTable of layer_tables.h: layers in files.

#include <google/protobuf/descriptor.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/text/layer_tables.h"

namespace attend::client {
namespace {

constexpr char kCaller[] = "the caller, or the file's metadata";
constexpr char kDefault[] = "default: nothing says otherwise";

// Adds a fact: what something is, and where that comes from. `is_said`: the caller or the metadata set it.
void Add(const std::string& name, const std::string& value, bool is_said, const std::string& origin, Json* facts) {
  facts->push_back({{"name", name},
                    {"value", value},
                    {"origin", is_said          ? kCaller
                               : origin.empty() ? kDefault
                                                : origin}});
}

std::string Rotary(const v1::LayerConfig& config) {
  const v1::RotaryEmbedding& rotary = config.rotary_embedding();
  if (!config.has_rotary_embedding() || rotary.form() == v1::ROTARY_FORM_NONE) return "none";
  std::string text = rotary.form() == v1::ROTARY_FORM_INTERLEAVED ? "neighbours" : "halves";
  if (rotary.frequencies().empty()) {
    absl::StrAppend(&text, ", base ", rotary.has_base() ? rotary.base() : 10000);
  } else {
    absl::StrAppend(&text, ", ", rotary.frequencies_size(), " frequencies from ", rotary.frequencies(0), " to ",
                    rotary.frequencies(rotary.frequencies_size() - 1));
  }
  if (rotary.dim() > 0) absl::StrAppend(&text, ", the first ", rotary.dim(), " elements of a head");
  if (rotary.has_linear_factor()) absl::StrAppend(&text, ", positions divided by ", rotary.linear_factor());
  if (rotary.has_llama3()) absl::StrAppend(&text, ", Llama 3 scaling by ", rotary.llama3().factor());
  if (!rotary.long_frequencies().empty()) absl::StrAppend(&text, ", others");
  if (rotary.has_dynamic_factor())
    absl::StrAppend(&text, ", another base (dynamic NTK, ", rotary.dynamic_factor(), ")");
  if (rotary.has_dynamic_factor() || !rotary.long_frequencies().empty()) {
    absl::StrAppend(&text, " beyond ", rotary.original_context_length(), " tokens");
  }
  if (rotary.has_attention_factor()) absl::StrAppend(&text, ", times ", rotary.attention_factor());
  return text;
}

std::string Causal(v1::CausalMode mode) {
  switch (mode) {
    case v1::CAUSAL_MODE_BOTTOM_RIGHT: return "causal";
    case v1::CAUSAL_MODE_TOP_LEFT: return "causal, top-left";
    default: return "not causal";
  }
}

std::string Window(const v1::AttentionOptions& options) {
  std::vector<std::string> sides;
  if (options.has_sliding_window_left()) sides.push_back(absl::StrCat(options.sliding_window_left(), " keys before"));
  if (options.has_sliding_window_right()) sides.push_back(absl::StrCat(options.sliding_window_right(), " keys after"));
  return sides.empty() ? "none" : absl::StrJoin(sides, ", ");
}

std::string Norms(const LayerFile& file) {
  const formats::AttentionLayer& layer = file.layer;
  if (layer.query_norm.weight == nullptr && layer.key_norm.weight == nullptr) return "none";
  const bool has_bias = layer.query_norm.bias != nullptr || layer.key_norm.bias != nullptr;
  const bool by_layer =
      file.config.norm_kind() == v1::NORM_KIND_UNSPECIFIED ? has_bias : file.config.norm_kind() == v1::NORM_KIND_LAYER;
  const double epsilon = file.config.has_norm_epsilon() ? file.config.norm_epsilon() : by_layer ? 1e-5 : 1e-6;
  return absl::StrCat(by_layer ? "layer norms" : "RMS norms", ", epsilon ", epsilon,
                      file.config.norm_adds_one() ? ", times 1 + weight" : "",
                      file.config.norm_after_rotary() ? ", behind the rotary embedding" : "");
}

void AddScores(const LayerFile& file, std::int64_t head_dim, Json* facts) {
  const v1::AttentionOptions &options = file.config.options(), &said = file.said.options();
  const formats::LayerSettings& known = file.layer.settings;
  Add("scale", options.has_scale() ? absl::StrCat(options.scale()) : absl::StrCat("1/sqrt(", head_dim, ")"),
      said.has_scale(), known.scale.origin, facts);
  Add("softcap", options.has_softcap() ? absl::StrCat(options.softcap()) : "none", said.has_softcap(),
      known.softcap.origin, facts);
  Add("ALiBi", options.has_alibi_slopes() ? "slopes" : "none", said.has_alibi_slopes(), known.alibi_slopes.origin,
      facts);
  Add("sinks", options.has_sinks() ? "a logit for each head" : "none", said.has_sinks(),
      known.sinks ? known.sinks.origin : "tensors", facts);
}

// Options that only the caller or the metadata can set, as in the protocol.
void AddOthers(const v1::AttentionOptions& options, Json* facts) {
  constexpr std::string_view kShown[] = {
      "causal", "sliding_window_left", "sliding_window_right", "scale", "softcap", "alibi_slopes", "sinks"};
  std::vector<const google::protobuf::FieldDescriptor*> given;
  options.GetReflection()->ListFields(options, &given);
  for (const auto* const field : given) {
    if (std::count(std::begin(kShown), std::end(kShown), field->name()) > 0) continue;
    std::string value;
    google::protobuf::TextFormat::PrintFieldValueToString(options, field, field->is_repeated() ? 0 : -1, &value);
    Add(field->name(), value, true, "", facts);
  }
}

// Everything that decides what the layer computes.
Json FactsOf(const LayerFile& file) {
  const formats::AttentionLayer& layer = file.layer;
  const formats::LayerSettings& known = layer.settings;
  const v1::LayerConfig &config = file.config, &said = file.said;
  const std::int64_t heads = config.num_heads() == 0 ? 1 : config.num_heads();
  const std::int64_t kv_heads = config.num_kv_heads() == 0 ? heads : config.num_kv_heads();
  const std::int64_t head_dim = layer.query.out_features / heads;
  const bool projects = layer.output.weight != nullptr;
  const std::int64_t output_dim = projects ? layer.output.out_features : layer.value.out_features / kv_heads * heads;
  const std::string tensors = "tensors";
  Json facts = Json::array();
  const auto add = [&facts](const std::string& name, const std::string& value, bool is_said,
                            const std::string& origin) { Add(name, value, is_said, origin, &facts); };
  add("naming", layer.naming, false, absl::StrCat("tensors below '", layer.module, "'"));
  add("shape", absl::StrCat(layer.query.in_features, " -> ", output_dim), false, tensors);
  add("heads", absl::StrCat(heads), said.num_heads() != 0, known.num_heads.origin);
  add("kv heads", absl::StrCat(kv_heads), said.num_kv_heads() != 0, known.num_kv_heads.origin);
  add("head size", absl::StrCat(head_dim), false, tensors);
  add("mask", Causal(config.options().causal()), said.options().causal() != 0, known.causal.origin);
  add("window", Window(config.options()),
      said.options().has_sliding_window_left() || said.options().has_sliding_window_right(), known.window_left.origin);
  add("rotary", Rotary(config), said.has_rotary_embedding(), known.rotary.origin);
  add("norms", Norms(file), said.norm_kind() != 0 || said.has_norm_epsilon(),
      known.norm_epsilon.origin.empty() ? tensors : known.norm_epsilon.origin);
  AddScores(file, head_dim, &facts);
  AddOthers(config.options(), &facts);
  add("output", projects ? "projection" : "heads side by side", false, tensors);
  return facts;
}

}  // namespace

Json CheckJson(const LayerFile& file) {
  return {{"facts", FactsOf(file)}, {"tensors", file.layer.tensors}, {"notes", file.layer.settings.notes}};
}

std::string CheckTable(const Json& check) {
  std::string text;
  const auto cell = [](const Json& fact, const char* name) { return fact[name].get<std::string>(); };
  for (const Json& fact : check["facts"]) {
    absl::StrAppendFormat(&text, "%-10s %-32s %s\n", cell(fact, "name"), cell(fact, "value"), cell(fact, "origin"));
  }
  absl::StrAppendFormat(&text, "%-10s %s\n", "tensors", JoinStrings(check["tensors"]));
  for (const Json& note : check["notes"]) absl::StrAppendFormat(&text, "%-10s %s\n", "note", note.get<std::string>());
  return text;
}

}  // namespace attend::client
