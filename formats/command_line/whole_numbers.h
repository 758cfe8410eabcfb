// Whole numbers on command lines, in environments and in files of configuration: decimal, and never another number than
// the one that stands there. CLI11 reads them as C does, so that 010 is 8, and sizes beyond 64 bits as the largest.
#ifndef ATTEND_FORMATS_COMMAND_LINE_WHOLE_NUMBERS_H_
#define ATTEND_FORMATS_COMMAND_LINE_WHOLE_NUMBERS_H_

#include <CLI/App.hpp>
#include <CLI/Validators.hpp>
#include <cstdint>

namespace attend::formats {

// Makes all options of `app` and of the commands below it that are integers decimal: 010 is 10, and 0x10 is refused. To
// be called once all of them are declared.
void ReadIntegersInDecimal(CLI::App& app);

// What transforms a size in [1, most] to its bytes. Sizes take a unit, all of them binary: 64, 64KiB, 64MB.
CLI::Validator SizeUpTo(std::int64_t most);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_COMMAND_LINE_WHOLE_NUMBERS_H_
