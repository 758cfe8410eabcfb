#include "formats/safetensors/safetensors_header.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "formats/safetensors/foreign_format.h"

namespace attend {
namespace {

constexpr std::size_t kMaxAxes = 32;
constexpr char kMetadataKey[] = "__metadata__";

// The most elements a tensor may have: its size in bits is then far from overflowing.
constexpr std::int64_t kMaxElements = std::int64_t{1} << 56;

struct Dtype {
  std::string_view name;
  std::int64_t bits;
};
constexpr Dtype kDtypes[] = {
    {"F32", 32},    {"F64", 64},    {"F16", 16},        {"BF16", 16},       {"BOOL", 8}, {"I8", 8},
    {"I16", 16},    {"I32", 32},    {"I64", 64},        {"U8", 8},          {"U16", 16}, {"U32", 32},
    {"U64", 64},    {"F8_E5M2", 8}, {"F8_E4M3", 8},     {"F8_E8M0", 8},     {"C64", 64}, {"F4", 4},
    {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
};

absl::Status Malformed(const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("the .safetensors header is malformed: ", why));
}

// Reads the header event by event, so that nothing is built from a nesting or a key that does not belong there.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const SafetensorsLimits& limits) : limits_(limits) {}

  absl::Status status;
  SafetensorsHeader header;

  bool start_object(std::size_t) override {
    switch (place_) {
      case Place::kBefore: return Go(Place::kRoot);
      case Place::kTensorOrMetadata:
        seen_.clear();
        if (key_ == kMetadataKey) return Go(Place::kMetadata);
        return Go(Place::kTensor);
      default: return Fail("an object stands where none belongs");
    }
  }

  bool end_object() override {
    if (place_ == Place::kRoot) return Go(Place::kAfter);
    if (place_ == Place::kTensor && seen_.size() != 3) {
      return Fail(absl::StrCat("tensor '", name_, "' lacks one of dtype, shape and data_offsets"));
    }
    return Go(Place::kRoot);
  }

  bool key(std::string& key) override {
    key_ = key;
    if (place_ == Place::kRoot) return RootKey();
    if (!seen_.insert(key).second) return Fail(absl::StrCat("the key '", key, "' of '", name_, "' comes twice"));
    if (place_ == Place::kMetadata) return true;
    if (key == "dtype") return Go(Place::kType);
    if (key == "shape" || key == "data_offsets") return Go(Place::kBeforeArray);
    return Fail(absl::StrCat("tensor '", name_, "' has the unknown key '", key, "'"));
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::kBeforeArray) return Fail("an array stands where none belongs");
    numbers_.clear();
    return Go(Place::kArray);
  }

  bool end_array() override {
    if (key_ == "shape") {
      Entry().shape = numbers_;
    } else {
      if (numbers_.size() != 2) return Fail(absl::StrCat("data_offsets of '", name_, "' are not two numbers"));
      Entry().begin = numbers_[0];
      Entry().end = numbers_[1];
    }
    return Go(Place::kTensor);
  }

  bool number_unsigned(std::uint64_t value) override {
    if (place_ != Place::kArray) return Fail("a number stands where none belongs");
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return Fail(absl::StrCat("tensor '", name_, "' has a number that is too large"));
    }
    if (numbers_.size() == kMaxAxes) return Fail(absl::StrCat("tensor '", name_, "' has more than 32 axes"));
    numbers_.push_back(static_cast<std::int64_t>(value));
    return true;
  }

  bool string(std::string& value) override {
    if (place_ == Place::kMetadata) {
      header.metadata.emplace(key_, value);
      return true;
    }
    if (place_ != Place::kType) return Fail("a string stands where none belongs");
    Entry().dtype = value;
    return Go(Place::kTensor);
  }

  bool number_integer(std::int64_t) override { return Fail(absl::StrCat("'", name_, "' has a negative number")); }
  bool number_float(double, const std::string&) override {
    return Fail(absl::StrCat("'", name_, "' has a number that is not an integer or is too large"));
  }
  bool null() override { return Fail("a null stands where none belongs"); }
  bool boolean(bool) override { return Fail("a boolean stands where none belongs"); }
  bool binary(nlohmann::json::binary_t&) override { return Fail("a binary value stands where none belongs"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override {
    return Fail(absl::StrCat("it is not JSON in UTF-8 (at byte ", position, ")"));
  }

 private:
  // Where in the document the reader stands.
  enum class Place { kBefore, kRoot, kTensorOrMetadata, kMetadata, kTensor, kType, kBeforeArray, kArray, kAfter };

  bool Go(Place place) {
    place_ = place;
    return true;
  }

  bool Fail(const std::string& why) {
    status = Malformed(why);
    return false;
  }

  bool RootKey() {
    name_ = key_;
    const bool is_new = names_.insert(name_).second;
    if (!is_new) return Fail(absl::StrCat("the key '", name_, "' comes twice"));
    if (name_ != kMetadataKey && header.tensors.size() == static_cast<std::size_t>(limits_.max_tensors)) {
      return Fail(absl::StrCat("it has more than ", limits_.max_tensors, " tensors"));
    }
    return Go(Place::kTensorOrMetadata);
  }

  SafetensorsEntry& Entry() { return header.tensors[name_]; }

  const SafetensorsLimits limits_;
  Place place_ = Place::kBefore;
  std::string key_;
  std::string name_;  // The root's key that the reader is in.
  std::set<std::string> names_;
  std::set<std::string> seen_;  // Keys of the object that the reader is in.
  std::vector<std::int64_t> numbers_;
};

// How many elements there are. Errors: INVALID_ARGUMENT when they are too many.
absl::StatusOr<std::int64_t> CountElements(const std::vector<std::int64_t>& shape) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  std::int64_t count = 1;
  for (const std::int64_t size : shape) {
    if (size > kMaxElements / count) return absl::InvalidArgumentError("it has more elements than any memory");
    count *= size;
  }
  return count;
}

// Checks one tensor by itself: type, shape, and as many bytes as they imply.
absl::Status CheckEntry(const std::string& name, const SafetensorsEntry& entry) {
  const auto* const found = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                         [&](const Dtype& dtype) { return dtype.name == entry.dtype; });
  if (found == std::end(kDtypes)) {
    return Malformed(absl::StrCat("tensor '", name, "' has the unknown dtype '", entry.dtype, "'"));
  }
  const absl::StatusOr<std::int64_t> count = CountElements(entry.shape);
  if (!count.ok()) return Malformed(absl::StrCat("tensor '", name, "': ", count.status().message()));
  if (*count * found->bits % 8 != 0) return Malformed(absl::StrCat("tensor '", name, "' does not end on a byte"));
  const std::int64_t bytes = *count * found->bits / 8;
  if (entry.end < entry.begin || entry.end - entry.begin != bytes) {
    return Malformed(absl::StrCat("tensor '", name, "' of dtype ", entry.dtype, " and shape [",
                                  absl::StrJoin(entry.shape, ", "), "] has ", bytes,
                                  " bytes, but its data_offsets are [", entry.begin, ", ", entry.end, "]"));
  }
  return absl::OkStatus();
}

// Checks that the tensors cover the data from the first byte to the last without holes or overlaps.
absl::Status CheckCoverage(const SafetensorsHeader& header, std::int64_t data_bytes) {
  std::vector<std::pair<const SafetensorsEntry*, const std::string*>> order;
  for (const auto& [name, entry] : header.tensors) order.emplace_back(&entry, &name);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first->begin, a.first->end) < std::pair(b.first->begin, b.first->end);
  });
  std::int64_t position = 0;
  for (const auto& [entry, name] : order) {
    if (entry->begin != position) {
      return Malformed(absl::StrCat("tensor '", *name, "' begins at byte ", entry->begin, ", but byte ", position,
                                    " comes next: tensors must neither overlap nor leave holes"));
    }
    position = entry->end;
  }
  if (position == data_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the .safetensors file has ", data_bytes, " bytes of data, but its tensors end at byte ", position));
}

}  // namespace

absl::StatusOr<std::int64_t> ParseSafetensorsLength(std::string_view first_bytes, std::int64_t file_bytes,
                                                    const SafetensorsLimits& limits) {
  if (first_bytes.size() < static_cast<std::size_t>(kSafetensorsLengthBytes)) {
    return absl::DataLossError(absl::StrCat("the .safetensors header length is incomplete: expected ",
                                            kSafetensorsLengthBytes, " bytes, found ", first_bytes.size()));
  }
  if (absl::Status foreign = RefuseForeignFormat(first_bytes); !foreign.ok()) return foreign;
  std::uint64_t length = 0;
  for (int i = kSafetensorsLengthBytes; i-- > 0;) length = length << 8 | static_cast<unsigned char>(first_bytes[i]);
  if (length > static_cast<std::uint64_t>(limits.max_header_bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected a .safetensors file, and this is none, or a damaged one: its header would have ", length,
                     " bytes, and at most ", limits.max_header_bytes, " are read"));
  }
  if (static_cast<std::int64_t>(length) > file_bytes - kSafetensorsLengthBytes) {
    return absl::DataLossError(absl::StrCat("the .safetensors header claims ", length, " bytes, but only ",
                                            file_bytes - kSafetensorsLengthBytes, " follow"));
  }
  return static_cast<std::int64_t>(length);
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view text, std::int64_t data_bytes,
                                                         const SafetensorsLimits& limits) {
  if (text.empty() || text.front() != '{') return Malformed("it does not begin with '{'");
  // Padding behind the JSON is spaces only; the JSON reader would also skip other blanks.
  if (text[text.find_last_not_of(' ')] != '}') return Malformed("it does not end with '}' and spaces");
  HeaderReader reader(limits);
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &reader)) return reader.status;
  for (const auto& [name, entry] : reader.header.tensors) {
    if (absl::Status status = CheckEntry(name, entry); !status.ok()) return status;
  }
  if (absl::Status status = CheckCoverage(reader.header, data_bytes); !status.ok()) return status;
  return std::move(reader.header);
}

absl::StatusOr<SafetensorsFile> ParseSafetensors(std::string_view file, const SafetensorsLimits& limits) {
  const std::int64_t file_bytes = static_cast<std::int64_t>(file.size());
  const absl::StatusOr<std::int64_t> length = ParseSafetensorsLength(file, file_bytes, limits);
  if (!length.ok()) return length.status();
  const std::string_view data = file.substr(static_cast<std::size_t>(kSafetensorsLengthBytes + *length));
  const std::string_view text = file.substr(kSafetensorsLengthBytes, static_cast<std::size_t>(*length));
  absl::StatusOr<SafetensorsHeader> header =
      ParseSafetensorsHeader(text, static_cast<std::int64_t>(data.size()), limits);
  if (!header.ok()) return header.status();
  return SafetensorsFile{*std::move(header), data};
}

}  // namespace attend
