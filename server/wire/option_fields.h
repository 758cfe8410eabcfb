// The fields of attend.v1.AttentionOptions as the core's tables know them (core/problem/option_table.h). Numbers and
// types come from the message's descriptor, by name: a new line in a table needs nothing here.
//
// Pure functions over a table that is made once; may be called concurrently.
#ifndef ATTEND_SERVER_WIRE_OPTION_FIELDS_H_
#define ATTEND_SERVER_WIRE_OPTION_FIELDS_H_

#include <cstddef>
#include <cstdint>

#include "attend/v1/attention_service.pb.h"
#include "core/problem/option_table.h"
#include "server/wire/wire_format.h"

namespace attend::server {

struct OptionField {
  enum class Kind : std::uint8_t { kOther, kScalar, kPerHead, kLengths };

  Kind kind = Kind::kOther;                    // Which table has it; kOther: none.
  std::uint8_t index = 0;                      // Where in the table.
  WireType type = WireType::kLengthDelimited;  // What a single value is on the wire.
};

// kOther for numbers that nobody knows, too.
OptionField FindOptionField(std::uint32_t number);

// The number of the field that an entry of a table names.
std::uint32_t OptionFieldNumber(const char* field);

// Sets the scalar option `index` to the value of `field`, which has the right wire type.
void SetScalarOption(std::size_t index, const WireField& field, AttentionOptions& options);

// Copies every scalar option that `message` sets.
void SetScalarOptions(const v1::AttentionOptions& message, AttentionOptions& options);

// The per-head option `index` of `message`; null when it is not set.
const v1::Tensor* PerHeadTensor(const v1::AttentionOptions& message, std::size_t index);
void ClearPerHeadTensors(v1::AttentionOptions& message);

}  // namespace attend::server

#endif  // ATTEND_SERVER_WIRE_OPTION_FIELDS_H_
