#include "formats/files/json_text.h"

#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace attend::formats {
namespace {

constexpr std::string_view kPythonNumbers[] = {"-Infinity", "Infinity", "NaN"};

// `text` with quotes around Python's numbers outside of strings. Each adds two bytes.
std::string QuotePythonNumbers(std::string_view text) {
  std::string quoted;
  quoted.reserve(text.size());
  bool in_string = false;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t taken = 1;
    if (in_string && text[i] == '\\' && i + 1 < text.size()) taken = 2;
    if (text[i] == '"') in_string = !in_string;
    for (const std::string_view number : kPythonNumbers) {
      if (in_string || text.substr(i, number.size()) != number) continue;
      quoted.append("\"").append(number).append("\"");
      i += number.size();
      taken = 0;
      break;
    }
    quoted.append(text.substr(i, taken));
    i += taken;
  }
  return quoted;
}

// Whether a JSON text may be built: looks at it event by event, so that nothing is built of one that is refused.
class Checker : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::string why;

  bool start_object(std::size_t) override {
    keys_.emplace_back();
    return Enter();
  }
  bool end_object() override {
    keys_.pop_back();
    return Leave();
  }
  bool key(std::string& key) override {
    if (keys_.back().insert(key).second) return true;
    return Fail(absl::StrCat("the key '", key.substr(0, 64), "' comes twice"));
  }
  bool start_array(std::size_t) override { return depth_ > 0 ? Enter() : Fail("it is an array"); }
  bool end_array() override { return Leave(); }
  bool null() override { return Value(); }
  bool boolean(bool) override { return Value(); }
  bool number_integer(std::int64_t) override { return Value(); }
  bool number_unsigned(std::uint64_t) override { return Value(); }
  bool number_float(double, const std::string&) override { return Value(); }
  bool string(std::string&) override { return Value(); }
  bool binary(nlohmann::json::binary_t&) override { return Value(); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override {
    return Fail(absl::StrCat("a mistake at byte ", position));
  }

 private:
  bool Fail(std::string reason) {
    why = std::move(reason);
    return false;
  }
  bool Enter() {
    return ++depth_ <= kMaxJsonDepth ? true : Fail(absl::StrCat("it is nested deeper than ", kMaxJsonDepth));
  }
  bool Leave() {
    --depth_;
    return true;
  }
  bool Value() { return depth_ > 0 ? true : Fail("it is a single value"); }

  int depth_ = 0;
  std::vector<std::set<std::string>> keys_;
};

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text) {
  const std::string quoted = QuotePythonNumbers(text);
  Checker checker;
  if (!nlohmann::json::sax_parse(quoted, &checker)) {
    return absl::InvalidArgumentError(absl::StrCat("it is not a JSON object: ", checker.why));
  }
  return nlohmann::json::parse(quoted, nullptr, /*allow_exceptions=*/false);
}

}  // namespace attend::formats
