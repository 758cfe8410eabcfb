// The word that somebody meant who wrote another one.
#ifndef ATTEND_FORMATS_COMMAND_LINE_NEAREST_H_
#define ATTEND_FORMATS_COMMAND_LINE_NEAREST_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace attend::formats {

// Insertions, deletions and replacements that make one text the other.
std::size_t EditDistance(std::string_view a, std::string_view b);

// The one of `known` that is nearest to `word`, letters of either case being the same: at most a third of its letters
// away, or one that begins with it or holds it (`causal` for `--is-causal`). Before those, one that says the same in
// our words (`--http-listen` for `--http-port`, `float16` for `fp16`). The first of several; empty for none. Pure.
std::string Nearest(std::string_view word, const std::vector<std::string>& known);

// `; did you mean --weights?`, or nothing.
std::string DidYouMean(std::string_view word, const std::vector<std::string>& known);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_COMMAND_LINE_NEAREST_H_
