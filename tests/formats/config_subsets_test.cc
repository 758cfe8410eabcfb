// Guards that config.json is read as transformers reads it, for random subsets of the keys of each model type's own
// configuration: attend's settings are those of the model that transformers 4 and 5 make of the same file, or the layer
// is refused. tests/vectors/models/record.py wrote down what those models were seen to compute.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "formats/hugging_face/hugging_face_config.h"
#include "formats/hugging_face/model_rules.h"

namespace attend::formats {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t kTokens = 24;  // Of the sequences that the models were seen with.

const Json& Recorded() {
  static const Json* const kRecorded = [] {
    std::ifstream file(ATTEND_CONFIG_SUBSETS);
    return new Json(Json::parse(file));
  }();
  return *kRecorded;
}

Json ConfigOf(const Json& base, const Json& recorded) {
  Json config = base;
  config.update(recorded["with"]);
  for (const std::string key : recorded["without"]) config.erase(key);
  return config;
}

std::vector<double> Llama3Frequencies(std::vector<double> frequencies, const Llama3& scaling) {
  for (double& frequency : frequencies) {
    const double turns = frequency * static_cast<double>(scaling.original_context_length) / (2 * M_PI);
    const double low = scaling.low_freq_factor, high = scaling.high_freq_factor;
    const double smooth = std::clamp((turns - low) / (high - low), 0.0, 1.0);
    frequency = frequency * smooth + frequency / scaling.factor * (1 - smooth);
  }
  return frequencies;
}

// By how much each pair of elements of a head turns from one of kTokens tokens to the next.
std::vector<double> FrequenciesOf(const Rotary& rotary, std::int64_t head_dim) {
  const bool is_long = rotary.original_context_length > 0 && kTokens > rotary.original_context_length;
  if (is_long && !rotary.long_frequencies.empty()) return rotary.long_frequencies;
  if (!rotary.frequencies.empty()) return rotary.frequencies;
  const auto dim = static_cast<double>(rotary.dim == 0 ? head_dim : rotary.dim);
  double base = rotary.base;
  if (is_long && rotary.dynamic_factor) {
    const double longer = double{kTokens} / static_cast<double>(rotary.original_context_length);
    base *= std::pow(*rotary.dynamic_factor * longer - (*rotary.dynamic_factor - 1), dim / (dim - 2));
  }
  std::vector<double> frequencies;
  for (double i = 0; i < dim / 2; ++i) {
    frequencies.push_back(std::pow(base, -2 * i / dim) / rotary.linear_factor.value_or(1));
  }
  return rotary.llama3 ? Llama3Frequencies(frequencies, *rotary.llama3) : frequencies;
}

// Compares what attend takes with what one version of transformers was seen to do, where that could be seen.
class Comparison {
 public:
  Comparison(const LayerSettings& attend, const Json& seen) : attend_(attend), seen_(seen) {}

  // Empty when they agree.
  std::string Differences() {
    const std::int64_t heads = attend_.num_heads.value.value_or(0);
    Expect("heads", static_cast<double>(heads));
    Expect("kv_heads", static_cast<double>(attend_.num_kv_heads.value.value_or(heads)));
    CompareMask();
    CompareScores();
    CompareRotary();
    if (seen_.contains("norm")) CompareNorm();
    return differences_;
  }

 private:
  void Differ(const std::string& what, const std::string& attend) {
    differences_ +=
        what + ": attend " + attend + ", transformers " + (seen_.contains(what) ? seen_[what].dump() : "none") + "; ";
  }
  void Expect(const std::string& what, double value) {
    if (!seen_.contains(what)) return;
    const double expected =
        seen_[what].is_boolean() ? (seen_[what].get<bool>() ? 1.0 : 0.0) : seen_[what].get<double>();
    if (std::abs(value - expected) > 2e-7 * std::abs(expected) + 1e-12) Differ(what, std::to_string(value));
  }

  void CompareMask() {
    if (!seen_.contains("causal")) return;
    const bool is_causal = attend_.causal && *attend_.causal != Causality::kNone;
    Expect("causal", is_causal ? 1 : 0);
    // A window that reaches over all tokens is not seen.
    const auto width = [](const Setting<std::int64_t>& side) { return side ? *side : kTokens; };
    const std::int64_t left = width(attend_.window_left), right = is_causal ? kTokens : width(attend_.window_right);
    if (left != seen_.value("left", kTokens) && (seen_.contains("left") || left < kTokens - 1)) {
      Differ("left", std::to_string(left));
    }
    if (right != seen_.value("right", kTokens) && (seen_.contains("right") || right < kTokens - 1)) {
      Differ("right", std::to_string(right));
    }
  }

  void CompareScores() {
    if (!seen_.contains("scale") || !seen_.contains("head_dim")) return;
    const double head_dim = seen_["head_dim"];
    Expect("scale", attend_.scale ? *attend_.scale : 1 / std::sqrt(head_dim));
    const double softcap = attend_.softcap ? *attend_.softcap : 0;
    if (softcap != seen_.value("softcap", 0.0)) Differ("softcap", std::to_string(softcap));
  }

  void CompareRotary() {
    if (!seen_.contains("rotary") || !seen_.contains("head_dim")) return;
    const Rotary none{.form = RotaryForm::kNone};
    const Rotary& rotary = attend_.rotary ? *attend_.rotary : none;
    const std::int64_t head_dim = seen_["head_dim"];
    if (rotary.form == RotaryForm::kNone || seen_["rotary"] == "none") {
      const bool both = rotary.form == RotaryForm::kNone && seen_["rotary"] == "none";
      if (!both) Differ("rotary", rotary.form == RotaryForm::kNone ? "none" : "one");
      return;
    }
    const bool is_half = rotary.form == RotaryForm::kHalf;
    if ((seen_["rotary"] == "half") != is_half && seen_["dim"] > 2) Differ("rotary", is_half ? "half" : "interleaved");
    Expect("dim", static_cast<double>(rotary.dim == 0 ? head_dim : rotary.dim));
    Expect("factor", rotary.attention_factor);
    const std::vector<double> frequencies = FrequenciesOf(rotary, head_dim);
    const std::vector<double> seen = seen_["frequencies"];
    bool are_alike = frequencies.size() == seen.size();
    for (std::size_t i = 0; are_alike && i < seen.size(); ++i) {
      are_alike = std::abs(frequencies[i] - seen[i]) <= 1e-6 * seen[i] + 1e-11;
    }
    if (!are_alike) Differ("frequencies", Json(frequencies).dump());
  }

  void CompareNorm() {
    const bool by_layer = attend_.norm_kind && *attend_.norm_kind == NormKind::kLayer;
    if ((seen_["norm"] == "layer") != by_layer) Differ("norm", by_layer ? "layer" : "rms");
    if (attend_.norm_epsilon) Expect("epsilon", *attend_.norm_epsilon);  // Without one, norms refuse the layer.
    Expect("adds_one", attend_.norm_adds_one && *attend_.norm_adds_one ? 1 : 0);
  }

  const LayerSettings& attend_;
  const Json& seen_;
  std::string differences_;
};

struct Count {
  int served = 0, refused = 0;
};

// Compares one layer of one subset; `versions` is {version: settings}.
void Check(const Json& config, const std::string& prefix, const Json& seen, const std::string& what, Count& count) {
  const absl::StatusOr<LayerSettings> attend =
      ParseHuggingFaceConfig(config.dump(), prefix, {}, seen.value("head_dim", std::int64_t{0}));
  // Without a number of heads, ReadLayer refuses the layer: see layer_reader_test.
  if (!attend.ok() || !attend->num_heads) {
    EXPECT_TRUE(attend.ok() || !attend.status().message().empty());
    ++count.refused;
    return;
  }
  ++count.served;
  const std::string differences = Comparison(*attend, seen).Differences();
  EXPECT_EQ(differences, "") << what << " at " << prefix << " of " << config.dump();
}

TEST(ConfigSubsets, AttendTakesWhatTransformersTakesOrRefuses) {
  Count all;
  for (const auto& [type, groups] : Recorded()["types"].items()) {
    Count count;
    for (const Json& group : groups) {
      for (const Json& recorded : group["cases"]) {
        const Json config = ConfigOf(group["base"], recorded);
        for (const auto& [version, layers] : recorded["layers"].items()) {
          for (const auto& [prefix, seen] : layers.items()) {
            Check(config, prefix, seen, type + ", transformers " + version, count);
          }
        }
      }
    }
    all.served += count.served;
    all.refused += count.refused;
    EXPECT_TRUE(FindModelRules(type)->refused.empty() || count.served == 0) << type;
  }
  RecordProperty("served", all.served);
  RecordProperty("refused", all.refused);
  std::printf("%d layers as transformers has them, %d refused\n", all.served, all.refused);
  EXPECT_GE(all.served, 1000);
}

TEST(ConfigSubsets, EveryModelTypeWithRulesIsRecordedOrHasAReason) {
  for (const ModelRules& rules : AllModelRules()) {
    if (!rules.refused.empty()) continue;
    const std::string types(rules.types);
    for (const absl::string_view word : absl::StrSplit(types, ' ')) {
      const std::string type(word);
      EXPECT_TRUE(Recorded()["types"].contains(type) || Recorded()["left_out"].contains(type))
          << type << " is not in tests/data/config_subsets.json: run tests/vectors/models/record.sh";
    }
  }
  EXPECT_GE(Recorded()["types"].size(), 165U);
}

}  // namespace
}  // namespace attend::formats
