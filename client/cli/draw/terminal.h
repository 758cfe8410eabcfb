// What the terminal, if there is one, can show.
#ifndef ATTEND_CLIENT_CLI_DRAW_TERMINAL_H_
#define ATTEND_CLIENT_CLI_DRAW_TERMINAL_H_

#include <cstdint>

namespace attend::client {

enum class ColorDepth : std::uint8_t { kNone, k256, kTrueColor };

struct Terminal {
  bool is_tty = false;
  ColorDepth color = ColorDepth::kNone;
  bool utf8 = false;  // Whether block characters can be shown.
  int columns = 80;
};

// Looks at a file descriptor and the environment: TERM, COLORTERM, LC_ALL / LC_CTYPE / LANG, COLUMNS, and NO_COLOR
// (https://no-color.org), which switches colour off when set to anything.
Terminal DetectTerminal(int file_descriptor);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_DRAW_TERMINAL_H_
