#include "formats/layers/leftover_tensors.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string_view>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace attend::formats {
namespace {

constexpr const char* kFrequencies = "rotary_emb.inv_freq";

// Whether a tensor below the module (`name` is what follows) is a buffer that libraries save and compute again: masks,
// and frequencies of rotary embeddings.
bool IsBuffer(std::string_view name, const CheckpointTensor& tensor) {
  if (name == "bias" || name == "causal_mask") return tensor.shape.size() == 4;
  if (name == "masked_bias") return tensor.shape.empty() || tensor.shape == std::vector<std::int64_t>{1};
  return name == kFrequencies;
}

// Inputs and results of attention, which files of one layer without a prefix often have beside its weights.
constexpr std::string_view kRecorded[] = {
    "attention_weights", "context", "embeddings", "key", "key_value", "log_sum_exp", "output", "query", "scores",
    "valid_lengths",     "value",   "x"};

bool IsRecorded(std::string_view name) {
  constexpr std::string_view kDouble = "_f64";
  if (name.size() > kDouble.size() && name.substr(name.size() - kDouble.size()) == kDouble) {
    name.remove_suffix(kDouble.size());
  }
  return std::find(std::begin(kRecorded), std::end(kRecorded), name) != std::end(kRecorded);
}

bool IsBeside(std::string_view name, const Naming& naming) {
  return std::any_of(naming.beside.begin(), naming.beside.end(), [name](std::string_view beside) {
    return beside.back() == '.' ? name.substr(0, beside.size()) == beside : name == beside;
  });
}

}  // namespace

absl::Status CheckNothingIsLost(const Checkpoint& checkpoint, const NamingFit& fit, const CallerSettings& caller,
                                const std::set<std::string>& read) {
  const auto& tensors = checkpoint.tensors();
  for (auto at = tensors.lower_bound(fit.module); at != tensors.end(); ++at) {
    const auto& [full, tensor] = *at;
    if (!absl::StartsWith(full, fit.module)) break;
    const std::string name = full.substr(fit.module.size());
    const auto& ignored = caller.ignored_tensors;
    if (read.count(full) > 0 || IsBuffer(name, tensor) || IsBeside(name, *fit.naming)) continue;
    if (fit.module.empty() && IsRecorded(name)) continue;
    if (std::find(ignored.begin(), ignored.end(), name) != ignored.end()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "the layer has the tensor '", full.substr(0, 200),
        "', which may change what it computes and is not supported in the naming ", std::string(fit.naming->name),
        "; if it is no part of attention, list '", name.substr(0, 200), "' in config.ignored_tensors"));
  }
  for (const std::string& name : caller.ignored_tensors) {
    if (checkpoint.Find(absl::StrCat(fit.module, name)) != nullptr) continue;
    return FieldError("config.ignored_tensors",
                      absl::StrCat("config.ignored_tensors has '", name.substr(0, 200), "', and there is no tensor '",
                                   fit.module, name.substr(0, 200), "'"));
  }
  return absl::OkStatus();
}

absl::Status CheckRotaryIsSaid(const Checkpoint& checkpoint, const std::string& module, const CallerSettings& caller,
                               const LayerSettings& settings) {
  if (caller.rotary || settings.rotary) return absl::OkStatus();
  std::string around = module;
  while (true) {
    const std::string name = absl::StrCat(around, kFrequencies);
    const auto& ignored = caller.ignored_tensors;
    const bool is_ignored =
        around == module && std::find(ignored.begin(), ignored.end(), kFrequencies) != ignored.end();
    if (checkpoint.Find(name) != nullptr && !is_ignored) {
      return FieldError("config.rotary_embedding",
                        absl::StrCat("config.rotary_embedding is not set: the tensor '", name.substr(0, 200),
                                     "' says that the layer has a rotary embedding, and nothing says which; set it, or "
                                     "put the model's config.json beside the file"));
    }
    if (around.empty()) return absl::OkStatus();
    const std::size_t dot = around.size() < 2 ? std::string::npos : around.rfind('.', around.size() - 2);
    around.resize(dot == std::string::npos ? 0 : dot + 1);
  }
}

}  // namespace attend::formats
