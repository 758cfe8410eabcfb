// The fields of attend.v1.AttentionOptions as the core's tables know them (core/problem/options.h). Numbers and
// types come from the message's descriptor, by name: a new line in a table needs nothing here. A scalar option `x` that
// was a float in version 0.1 has its old field under the name `float_x`.
//
// Pure functions over a table that is made once; may be called concurrently.
#ifndef ATTEND_SERVER_WIRE_OPTION_FIELDS_H_
#define ATTEND_SERVER_WIRE_OPTION_FIELDS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "attend/v1/attention_service.pb.h"
#include "core/problem/options.h"
#include "server/wire/wire_format.h"

namespace attend::server {

struct OptionField {
  enum class Kind : std::uint8_t { kOther, kScalar, kFloatScalar, kEnum, kPerHead, kLengths };

  Kind kind = Kind::kOther;                    // Which table has it; kOther: none.
  std::uint8_t index = 0;                      // Where in the table.
  WireType type = WireType::kLengthDelimited;  // What a single value is on the wire.
};

// kOther for numbers that nobody knows, too.
OptionField FindOptionField(std::uint32_t number);

// Whether a layer may have the option, as a request may.
bool IsLayerOption(std::uint32_t number);

// The number of the field that an entry of a table names.
std::uint32_t OptionFieldNumber(const char* field);

// Sets the scalar option `index` to the value of `field`, which has the right wire type.
void SetScalarOption(std::size_t index, const WireField& field, AttentionOptions& options);

// What the `float_` fields of a message hold, by index in kScalarOptions.
using FloatScalars = std::array<std::optional<float>, std::size(kScalarOptions)>;

// INVALID_ARGUMENT with `field`: it and the deprecated field `old`, which has the same in float32, are both given.
absl::Status FloatDiffers(std::string_view field, double value, std::string_view old, float old_value);

// Sets the scalar options that are absent to their float. Errors: INVALID_ARGUMENT with the field when a float is not
// its option's value in float32.
absl::Status MergeFloatScalars(const FloatScalars& floats, AttentionOptions& options);

// By index in kEnumOptions; 0 is absent.
using EnumNumbers = std::array<std::int32_t, std::size(kEnumOptions)>;

// Sets each mode. Errors: INVALID_ARGUMENT with the field, behind `owner` (`config.` or nothing), for a number that the
// protocol does not have.
absl::Status SetEnumOptions(const EnumNumbers& numbers, std::string_view owner, AttentionOptions& options);
absl::Status SetEnumOptions(const v1::AttentionOptions& message, std::string_view owner, AttentionOptions& options);

// Copies every scalar option that `message` sets; not its `float_` fields.
void SetScalarOptions(const v1::AttentionOptions& message, AttentionOptions& options);

// The per-head option `index` of `message`; null when it is not set.
const v1::Tensor* PerHeadTensor(const v1::AttentionOptions& message, std::size_t index);
void ClearPerHeadTensors(v1::AttentionOptions& message);

}  // namespace attend::server

#endif  // ATTEND_SERVER_WIRE_OPTION_FIELDS_H_
