#include "formats/layers/naming_search.h"

#include <algorithm>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace attend::formats {
namespace {

constexpr std::size_t kMaxListed = 6;
constexpr std::size_t kMaxNameLength = 80;

std::vector<std::string_view> Matrices(const Naming& naming) {
  if (naming.fusion != Fusion::kNone) return {naming.query};
  return {naming.query, naming.key, naming.value};
}

// What `naming` lacks at `fit.module` to fit there; sets fit.output. The second is how much of it there is.
struct Lack {
  std::string tensor;  // Empty when it fits.
  int found = 0;
};
Lack FindLack(const Checkpoint& checkpoint, NamingFit& fit) {
  Lack lack;
  for (const std::string_view matrix : Matrices(*fit.naming)) {
    const std::string name = fit.Weight(matrix);
    if (checkpoint.Find(name) != nullptr) {
      ++lack.found;
    } else if (lack.tensor.empty()) {
      lack.tensor = name;
    }
  }
  for (const std::string_view output : fit.naming->outputs) {
    if (fit.output.empty() && checkpoint.Find(fit.Name(output, ".", "weight")) != nullptr) fit.output = output;
  }
  if (fit.output.empty() && fit.naming->needs_output && lack.tensor.empty()) {
    lack.tensor = fit.Name(fit.naming->outputs.front(), ".", "weight");
  }
  return lack;
}

// Whether a model of this type may have its weights in `naming`: some types have one of their own.
bool IsFor(const Naming& naming, std::string_view model_type) {
  if (!naming.model_type.empty()) return naming.model_type == model_type;
  return std::none_of(Namings().begin(), Namings().end(), [&](const Naming& other) {
    return !other.model_type.empty() && other.model_type == model_type && other.query == naming.query;
  });
}

// Whether `fit` is `other` without its output projection.
bool IsPartOf(const NamingFit& fit, const NamingFit& other) {
  return fit.output.empty() && !other.output.empty() && fit.module == other.module &&
         fit.naming->query == other.naming->query && fit.naming->key == other.naming->key &&
         fit.naming->value == other.naming->value;
}

// The first of `names`, and how many there are more.
std::string List(const std::vector<std::string>& names) {
  std::string list;
  for (std::size_t i = 0; i < std::min(names.size(), kMaxListed); ++i) {
    const std::string& name = names[i];
    absl::StrAppend(&list, i > 0 ? ", " : "", name.substr(0, kMaxNameLength),
                    name.size() > kMaxNameLength ? "..." : "");
  }
  if (names.size() > kMaxListed) absl::StrAppend(&list, " and ", names.size() - kMaxListed, " more");
  return list;
}

// Adds the prefixes at which `naming` fits to `prefixes`.
void AddPrefixes(const Checkpoint& checkpoint, const Naming& naming, std::set<std::string>& prefixes) {
  for (const std::string_view module : naming.modules) {
    if (module.empty() && naming.modules.size() > 1) continue;  // The attention module of a layer that is listed.
    const std::string ending =
        absl::StrCat(std::string(module), std::string(naming.query), std::string(naming.separator), "weight");
    for (const auto& [name, tensor] : checkpoint.tensors()) {
      if (!absl::EndsWith(name, ending)) continue;
      const std::string prefix = name.substr(0, name.size() - ending.size());
      if (!prefix.empty() && prefix.back() != '.') continue;
      NamingFit fit{&naming, absl::StrCat(prefix, std::string(module)), {}};
      if (FindLack(checkpoint, fit).tensor.empty()) prefixes.insert(prefix);
    }
  }
}

// Where the layers are that this file does have, in quotes.
std::vector<std::string> LikelyPrefixes(const Checkpoint& checkpoint) {
  std::set<std::string> prefixes;
  for (const Naming& naming : Namings()) {
    if (naming.needs_output) AddPrefixes(checkpoint, naming, prefixes);
  }
  // Those without an output projection are inner parts of others, if there are any.
  for (const Naming& naming : Namings()) {
    if (!naming.needs_output && prefixes.empty()) AddPrefixes(checkpoint, naming, prefixes);
  }
  std::vector<std::string> quoted;  // One may be empty.
  quoted.reserve(prefixes.size());
  for (const std::string& prefix : prefixes) quoted.push_back(absl::StrCat("'", prefix, "'"));
  return quoted;
}

// `llama (self_attn.q_proj.weight)` for each naming.
std::string LookedFor() {
  std::vector<std::string> words;
  for (const Naming& naming : Namings()) {
    words.push_back(absl::StrCat(std::string(naming.name), " (", std::string(naming.modules.front()),
                                 std::string(naming.query), std::string(naming.separator), "weight)"));
  }
  return absl::StrJoin(words, ", ");
}

absl::Status NoneFits(const Checkpoint& checkpoint, const std::string& prefix, const std::string& nearest) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    if (absl::StartsWith(name, prefix)) names.push_back(name);
  }
  std::string message = prefix.empty() ? "no attention layer was found"
                                       : absl::StrCat("no attention layer was found with the prefix '", prefix, "'");
  if (!nearest.empty()) absl::StrAppend(&message, ": ", nearest);
  const std::vector<std::string> prefixes = LikelyPrefixes(checkpoint);
  if (!prefixes.empty()) absl::StrAppend(&message, "; the file has layers with the prefixes ", List(prefixes));
  if (names.empty()) {
    for (const auto& [name, tensor] : checkpoint.tensors()) names.push_back(name);
    absl::StrAppend(&message, "; no tensor has this prefix");
    if (!names.empty()) absl::StrAppend(&message, "; the file has: ", List(names));
  } else {
    absl::StrAppend(&message, "; there is ", List(names));
  }
  absl::StrAppend(&message, "; looked for, with the prefix or below it: ", LookedFor());
  return absl::InvalidArgumentError(message);
}

}  // namespace

std::string NamingFit::Name(std::string_view linear, std::string_view separator, std::string_view part) const {
  return absl::StrCat(module, std::string(linear), std::string(separator), std::string(part));
}

absl::StatusOr<NamingFit> FindNaming(const Checkpoint& checkpoint, std::string_view prefix,
                                     std::string_view model_type) {
  std::string start(prefix);
  if (!start.empty() && start.back() != '.') start += '.';
  std::vector<NamingFit> fits;
  std::string nearest;
  int most = 0;
  for (const Naming& naming : Namings()) {
    if (!IsFor(naming, model_type)) continue;
    for (const std::string_view module : naming.modules) {
      NamingFit fit{&naming, absl::StrCat(start, std::string(module)), {}};
      const Lack lack = FindLack(checkpoint, fit);
      if (lack.tensor.empty()) {
        fits.push_back(fit);
      } else if (lack.found > most) {
        most = lack.found;
        nearest = absl::StrCat("for the naming ", std::string(naming.name), " it lacks ", lack.tensor);
      }
    }
  }
  const auto is_part_of_another = [&fits](const NamingFit& fit) {
    return std::any_of(fits.begin(), fits.end(), [&](const NamingFit& other) { return IsPartOf(fit, other); });
  };
  fits.erase(std::remove_if(fits.begin(), fits.end(), is_part_of_another), fits.end());
  if (fits.size() == 1) return fits[0];
  if (fits.empty()) return NoneFits(checkpoint, start, nearest);
  return absl::InvalidArgumentError(absl::StrCat(
      "several attention layers have the prefix '", start, "': ",
      absl::StrJoin(fits, ", ",
                    [](std::string* out, const NamingFit& fit) {
                      absl::StrAppend(out, fit.Weight(fit.naming->query), " (", std::string(fit.naming->name), ")");
                    }),
      "; give a prefix that only one of them has"));
}

}  // namespace attend::formats
