// Guards that docs/layers.md and docs/models.md say what the reader knows: each naming, and each model type with its
// rules.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "formats/hugging_face/model_rules.h"
#include "formats/layers/naming_table.h"

namespace attend::formats {
namespace {

std::string Contents(const std::string& path) {
  std::ifstream file(absl::StrCat(ATTEND_SOURCE_DIR, "/", path));
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// What stands in quotes in the first column of the table of namings.
std::multiset<std::string> NamingsInTheTable() {
  std::multiset<std::string> names;
  bool in_table = false;
  for (const absl::string_view line : absl::StrSplit(Contents("docs/layers.md"), '\n')) {
    in_table = in_table ? line.substr(0, 1) == "|" : line.substr(0, 10) == "| naming |";
    if (!in_table) continue;
    const std::vector<std::string> columns = absl::StrSplit(line, '|');
    const std::vector<std::string> pieces = absl::StrSplit(columns[1], '`');
    for (std::size_t i = 1; i < pieces.size(); i += 2) names.insert(pieces[i]);
  }
  return names;
}

TEST(Layers, TheTableHasEachNamingOnce) {
  std::set<std::string> known;
  for (const Naming& naming : Namings()) known.insert(std::string(naming.name));
  EXPECT_THAT(NamingsInTheTable(), ::testing::ElementsAreArray(known));
}

std::string Quoted(std::string_view words) {
  const std::string text(words);
  return absl::StrJoin(absl::StrSplit(text, ' '), ", ",
                       [](std::string* out, absl::string_view word) { absl::StrAppend(out, "`", word, "`"); });
}

std::string MaskOf(const ModelRules& rules) {
  switch (rules.mask) {
    case MaskRule::kNone: return "all";
    case MaskRule::kCausal: return "those before";
    case MaskRule::kDecoder: return "all; those before with `is_decoder`";
    case MaskRule::kSeq2Seq: return "encoder: all, decoder: those before";
  }
  return "";
}

std::string RotaryOf(const ModelRules& rules) {
  if (rules.rotary == RotaryForm::kNone) return "none";
  std::string text = rules.rotary == RotaryForm::kHalf ? "halves" : "neighbours";
  if ((rules.traits & kRotaryWhereSliding) != 0) absl::StrAppend(&text, ", where there is a window");
  if (rules.window == WindowRule::kSmolLm) absl::StrAppend(&text, ", by `no_rope_layers`");
  if ((rules.traits & kRotaryByType) != 0) absl::StrAppend(&text, ", by `position_embedding_type`");
  return text;
}

std::string WindowOf(const ModelRules& rules) {
  switch (rules.window) {
    case WindowRule::kNever: return "none";
    case WindowRule::kAll: return "`sliding_window`";
    case WindowRule::kByTypes: return "`layer_types`";
    case WindowRule::kLastLayers: return "`layer_types`, or from `max_window_layers` on";
    case WindowRule::kEven: return "`layer_types`, or every other layer";
    case WindowRule::kPattern: return "`layer_types`, or by `sliding_window_pattern`";
    case WindowRule::kSmolLm: return "`layer_types`, or layers without rotary embedding";
    case WindowRule::kGptNeo: return "`attention_layers`, `attention_types`";
    case WindowRule::kModernBert:
    case WindowRule::kModernBertDecoder: return "`layer_types`, or by `global_attn_every_n_layers`";
  }
  return "";
}

std::string RemarksOf(const ModelRules& rules) {
  if (!rules.refused.empty()) return absl::StrCat("**refused**: ", std::string(rules.refused));
  const std::pair<std::uint32_t, const char*> remarks[] = {
      {kAddsOne, "norms multiply by 1 + weight"},
      {kLayerNorm, "norms of query and key are layer norms"},
      {kUnitScale, "scores are not scaled"},
      {kNormAfterRotary, "norms behind the rotation"},
      {kAlibi, "ALiBi"},
      {kRelativeBias, "relative bias in `options.bias`"},
      {kNormsNotKnown, "refused with `use_qk_norm`"},
      {kTwoMagnitudes, "longrope times `short_mscale`, which `long_mscale` must be"}};
  std::vector<std::string> texts;
  for (const auto& [trait, text] : remarks) {
    if ((rules.traits & trait) != 0) texts.emplace_back(text);
  }
  return absl::StrJoin(texts, ", ");
}

std::string Document() {
  std::string text =
      "# Model types\n\n"
      "The values of `model_type` in a config.json whose rules attend knows, from the code of transformers 4.57 and 5: "
      "which\n"
      "keys a query sees, where queries and keys are turned, which layers have a window. How well that holds is in\n"
      "tests/vectors/MODELS.md. Any other type is refused unless the layer's configuration settles what its code might "
      "imply.\n"
      "`model_documents_test` compares this file with the code, and writes it.\n\n"
      "| `model_type` | keys | rotary embedding | window | also |\n|---|---|---|---|---|\n";
  for (const ModelRules& rules : AllModelRules()) {
    absl::StrAppend(&text, "| ", Quoted(rules.types), " | ", MaskOf(rules), " | ", RotaryOf(rules), " | ",
                    WindowOf(rules), " | ", RemarksOf(rules), " |\n");
  }
  absl::StrAppend(
      &text, "\n## Models of several parts\n\n",
      "Which part is meant is said by the prefix: one with `vision`, `visual` or `image` is the pictures'. The part's\n"
      "own `model_type` is used if it has one, else this; types that are not above are refused.\n\n",
      "| `model_type` | text | pictures |\n|---|---|---|\n");
  for (const CompositeRules& rules : AllCompositeRules()) {
    absl::StrAppend(&text, "| ", Quoted(rules.type), " | ", Quoted(rules.text), " | ", Quoted(rules.vision), " |\n");
  }
  return text;
}

TEST(ModelTypes, TheDocumentIsThatOfTheCode) {
  const std::string expected = Document();
  const bool is_current = Contents("docs/models.md") == expected;
  if (!is_current) std::ofstream("models.md") << expected;
  EXPECT_TRUE(is_current)
      << "docs/models.md says something else than formats/hugging_face/model_rules.cc; what it should "
         "be is in models.md in the build's folder";
}

TEST(ModelTypes, TheDocumentOfLayersNamesWhatIsRefusedAndWhereTheListIs) {
  const std::string document = Contents("docs/layers.md");
  EXPECT_THAT(document, ::testing::HasSubstr("(models.md)"));
  for (const ModelRules& rules : AllModelRules()) {
    if (rules.refused.empty()) continue;
    const std::string types(rules.types);
    for (const absl::string_view type : absl::StrSplit(types, ' ')) {
      EXPECT_THAT(document, ::testing::HasSubstr(absl::StrCat("`", type, "`")))
          << "docs/layers.md does not say that it is refused";
    }
  }
}

}  // namespace
}  // namespace attend::formats
