// What is wrong with a command line, in the words of the command.
#ifndef ATTEND_FORMATS_COMMAND_LINE_USAGE_ERROR_H_
#define ATTEND_FORMATS_COMMAND_LINE_USAGE_ERROR_H_

#include <CLI/App.hpp>
#include <CLI/Error.hpp>
#include <string>

namespace attend::formats {

// The commands that were parsed, as the user wrote them: `attend layers get`.
std::string CommandPath(const CLI::App& app);

// A sentence for `error`, which parsing with `app` threw: names the flag, the command or the argument that is wrong,
// and what to write instead. A flag or command that does not exist comes before whatever else is wrong, because it is
// the cause. REQUIRES: `error` is none of CLI::Success.
std::string UsageMessage(const CLI::App& app, const CLI::ParseError& error);

// The sentence for a word that stands where a command should; empty when there is none. Whoever asks for the help of a
// command that does not exist is told so too.
std::string WordInPlaceOfCommand(const CLI::App& app);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_COMMAND_LINE_USAGE_ERROR_H_
