#include "formats/command_line/nearest.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace attend::formats {
namespace {

constexpr std::size_t kLeastPart = 4;  // Letters, from which on a part of a word says which word is meant.

// What other programs say, and what ours say: flags, or the last part of their names, and types.
constexpr std::pair<absl::string_view, absl::string_view> kSynonyms[] = {
    {"port", "listen"},    {"host", "listen"},      {"address", "listen"},    {"bind", "listen"},
    {"port", "endpoints"}, {"host", "endpoints"},   {"address", "endpoints"}, {"server", "endpoints"},
    {"url", "endpoints"},  {"target", "endpoints"}, {"attn-mask", "mask"},    {"softmax-scale", "scale"},
    {"model", "layer"},    {"fp16", "float16"},     {"f16", "float16"},       {"half", "float16"},
    {"bf16", "bfloat16"},  {"fp32", "float32"},     {"f32", "float32"},       {"single", "float32"},
    {"float", "float32"},  {"fp64", "float64"},     {"f64", "float64"},       {"double", "float64"},
};

// `word` in lower case, without the dashes of a flag.
std::string Bare(std::string_view word) {
  const std::size_t begin = std::min(word.find_first_not_of('-'), word.size());
  return absl::AsciiStrToLower(std::string(word.substr(begin)));
}

bool IsPart(std::string_view part, std::string_view whole) {
  return part.size() >= kLeastPart && whole.find(part) != std::string_view::npos;
}

// The one of `known` that says in our words what `bare` says; empty for none.
std::string OurWord(const std::string& bare, const std::vector<std::string>& known) {
  for (const auto& [other, ours] : kSynonyms) {
    if (!absl::EndsWith(bare, other)) continue;
    const std::string beginning = bare.substr(0, bare.size() - other.size());
    if (!beginning.empty() && beginning.back() != '-') continue;
    for (const std::string& candidate : known) {
      if (Bare(candidate) == absl::StrCat(beginning, ours)) return candidate;
    }
  }
  return "";
}

}  // namespace

std::size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, replace}));
    }
  }
  return row[b.size()];
}

std::string Nearest(std::string_view word, const std::vector<std::string>& known) {
  const std::string bare = Bare(word);
  if (std::string ours = OurWord(bare, known); !ours.empty()) return ours;
  std::string nearest, part;
  std::size_t least = bare.size() / 3 + (bare.size() < 6 ? 1 : 0) + 1;  // One more than is allowed.
  for (const std::string& candidate : known) {
    const std::string other = Bare(candidate);
    if (const std::size_t distance = EditDistance(bare, other); distance < least) {
      least = distance;
      nearest = candidate;
    }
    if (part.empty() && (IsPart(bare, other) || IsPart(other, bare))) part = candidate;
  }
  return nearest.empty() ? part : nearest;
}

std::string DidYouMean(std::string_view word, const std::vector<std::string>& known) {
  const std::string nearest = Nearest(word, known);
  return nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?");
}

}  // namespace attend::formats
