#include "formats/command_line/whole_numbers.h"

#include <algorithm>
#include <cstddef>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace attend::formats {
namespace {

constexpr char kDigits[] = "0123456789";

// Without the zeros at its beginning, by which CLI11 would take it for octal or hexadecimal. What else it reads is
// decimal, and what it does not read is its own to refuse. Returns what is wrong, as the checks of CLI11 do.
std::string ToDecimal(std::string& text) {
  absl::string_view number = absl::StripLeadingAsciiWhitespace(text);
  const bool is_negative = absl::ConsumePrefix(&number, "-");
  if (!is_negative) absl::ConsumePrefix(&number, "+");
  if (number.empty() || number.front() != '0') return "";
  if (number.find_first_not_of(kDigits) != absl::string_view::npos)
    return absl::StrCat("Value ", text, " not an integer");
  number.remove_prefix(std::min(number.find_first_not_of('0'), number.size() - 1));
  text = absl::StrCat(is_negative ? "-" : "", number);
  return "";
}

bool IsInteger(const CLI::Option& option) {
  const std::string type = option.get_type_name();  // `INT:POSITIVE`.
  const std::string own = type.substr(0, type.find(':'));
  return own == "INT" || own == "UINT";
}

// How often 1024 is a factor of the unit; -1 for one that is none. Those of CLI11: b, k, kb, ki, kib, m, ...
int PowerOf(absl::string_view unit) {
  const std::string lower = absl::AsciiStrToLower(absl::StripAsciiWhitespace(unit));
  if (lower.empty() || lower == "b") return 0;
  const std::size_t power = absl::string_view("kmgtpe").find(lower.front());
  const std::string rest = lower.substr(1);
  const bool is_unit = power != absl::string_view::npos && (rest.empty() || rest == "b" || rest == "i" || rest == "ib");
  return is_unit ? static_cast<int>(power) + 1 : -1;
}

std::string ToBytes(std::string& text, std::int64_t most) {
  absl::string_view size = absl::StripAsciiWhitespace(text);
  absl::ConsumePrefix(&size, "+");
  const absl::string_view number = size.substr(0, size.find_first_not_of(kDigits));
  const int power = PowerOf(size.substr(number.size()));
  if (number.empty() || power < 0) return absl::StrCat("Value ", text, " not a size");
  std::int64_t bytes = 0;
  // Of digits alone, so that it fails for numbers beyond int64 and for no others.
  const bool fits =
      absl::SimpleAtoi(number, &bytes) && !__builtin_mul_overflow(bytes, std::int64_t{1} << (10 * power), &bytes);
  if (!fits || bytes < 1 || bytes > most) return absl::StrCat("Value ", text, " not in range 1 to ", most);
  text = absl::StrCat(bytes);
  return "";
}

}  // namespace

void ReadIntegersInDecimal(CLI::App& app) {
  for (CLI::Option* option : app.get_options([](const CLI::Option* each) { return IsInteger(*each); })) {
    option->transform(CLI::Validator(ToDecimal, ""));
  }
  for (CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) ReadIntegersInDecimal(*command);
}

CLI::Validator SizeUpTo(std::int64_t most) {
  return {[most](std::string& text) { return ToBytes(text, most); }, ""};
}

}  // namespace attend::formats
