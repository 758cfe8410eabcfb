#include "formats/command_line/outline.h"

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace attend::formats {
namespace {

// Text that roff prints as it is: backslashes and dashes are its own otherwise, and a dot or an apostrophe begins a
// command where it begins a line.
std::string Plain(const std::string& text) {
  std::string out;
  for (const absl::string_view line : absl::StrSplit(absl::StrReplaceAll(text, {{"\\", "\\e"}, {"-", "\\-"}}), '\n')) {
    if (!out.empty()) out += '\n';
    if (!line.empty() && (line.front() == '.' || line.front() == '\'')) out += "\\&";
    absl::StrAppend(&out, line);
  }
  return out;
}

// A paragraph as it is written, line by line.
std::string Verbatim(const std::string& text) {
  return text.empty() ? ""
                      : absl::StrCat(".PP\n.nf\n", Plain(std::string(absl::StripAsciiWhitespace(text))), "\n.fi\n");
}

std::string Flag(const FlagOutline& flag) {
  std::string out = absl::StrCat(".TP\n.B ", Plain(absl::StrJoin(flag.names, ", ")));
  if (flag.takes_value() && !flag.is_argument) absl::StrAppend(&out, " \\fI", Plain(flag.type), "\\fR");
  absl::StrAppend(&out, "\n", Plain(flag.help), flag.help.empty() ? "" : ".");
  if (!flag.choices.empty()) absl::StrAppend(&out, " One of ", Plain(absl::StrJoin(flag.choices, ", ")), ".");
  if (!flag.default_value.empty()) absl::StrAppend(&out, " Default: ", Plain(flag.default_value), ".");
  if (!flag.variable.empty()) absl::StrAppend(&out, " Also read from ", Plain(flag.variable), ".");
  return out + "\n";
}

std::string Flags(const CommandOutline& command) {
  std::string out;
  for (const FlagOutline& flag : command.flags) out += Flag(flag);
  return out;
}

}  // namespace

std::string ManualPage(const CLI::App& app, int section, const std::string& version) {
  const std::vector<CommandOutline> outline = OutlineOf(app);
  const std::string& name = app.get_name();
  const bool has_commands = outline.size() > 1;
  std::string page =
      absl::StrCat(".TH ", absl::AsciiStrToUpper(name), " ", section, " \"\" \"", name, " ", version, "\"\n");
  absl::StrAppend(&page, ".SH NAME\n", Plain(name), " \\- ", Plain(outline[0].description), "\n");
  absl::StrAppend(&page, ".SH SYNOPSIS\n.B ", Plain(name), "\n[\\fIflags\\fR]",
                  has_commands ? " \\fIcommand\\fR [\\fIflags\\fR]" : "", "\n");
  absl::StrAppend(&page, ".SH OPTIONS\n", Flags(outline[0]));
  if (has_commands) page += ".SH COMMANDS\n";
  for (std::size_t i = 1; i < outline.size(); ++i) {
    const CommandOutline& command = outline[i];
    absl::StrAppend(&page, ".SS ", Plain(absl::StrCat(name, " ", command.path)), "\n", Plain(command.description),
                    ".\n", Flags(command), Verbatim(command.footer));
  }
  if (!outline[0].footer.empty()) absl::StrAppend(&page, ".SH NOTES\n", Verbatim(outline[0].footer));
  return page;
}

}  // namespace attend::formats
