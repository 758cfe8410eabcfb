// Empty values on a command line: most are a shell variable that is not set, as in --layer "$LAYER", and to take them
// for a flag that was not given would compute something else, or leave a connection unprotected.
#ifndef ATTEND_FORMATS_COMMAND_LINE_EMPTY_VALUE_H_
#define ATTEND_FORMATS_COMMAND_LINE_EMPTY_VALUE_H_

#include <CLI/App.hpp>
#include <set>
#include <string>
#include <vector>

namespace attend::formats {

// A sentence that names the first flag or argument of `app`, or of the commands that were parsed below it, whose value
// is empty; empty when there is none. Flags in `may_be_empty`, as in `--data-dir`, are left out. Variables of the
// environment that are empty count as not set, and are not seen here. REQUIRES: `app` has parsed.
std::string EmptyValue(const CLI::App& app, const std::set<std::string>& may_be_empty = {});

// The same for `--flag=`, to be asked before parsing: CLI11 takes the next argument for the value.
std::string EmptyAssignment(const std::vector<std::string>& arguments);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_COMMAND_LINE_EMPTY_VALUE_H_
