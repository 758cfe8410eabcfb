// Requests as they stand on the wire: every scalar read, every tensor located, nothing checked and nothing copied.
//
// The Raw structs mirror the messages of proto/attend/v1 and mean exactly what the generated classes would hold after
// parsing the same bytes: the last scalar wins, a message that appears twice is merged, repeated numbers may be packed
// or not or both, enums keep numbers that nobody knows. Their size does not depend on the request: of repeated fields
// they keep what the rules need (counts, the first axes), and VisitFields finds the elements again.
//
// Plain data and pure functions; may be used concurrently.
#ifndef ATTEND_SERVER_WIRE_REQUEST_READER_H_
#define ATTEND_SERVER_WIRE_REQUEST_READER_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <optional>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "core/problem/options.h"
#include "server/base/limits.h"
#include "server/wire/option_fields.h"
#include "server/wire/wire_format.h"

namespace attend::server {

// A string: bytes that are UTF-8.
struct RawText : ByteRange {};

// A repeated integer: how many numbers there are.
struct RawIntegers {
  std::int64_t count = 0;
};

// attend.v1.Tensor.
struct RawTensor {
  bool present = false;  // Whether the message is there, be it empty.
  std::int32_t data_type = 0;
  std::array<std::int64_t, kMaxRank> shape{};  // The first axes;
  std::int64_t rank = 0;                       // may be larger than kMaxRank.
  ByteRange data;
  std::int64_t num_values = 0;
};

// attend.v1.Linear.
struct RawLinear {
  bool present = false;
  RawTensor weight;
  RawTensor bias;
};

// attend.v1.AttentionLayer.
struct RawLayer {
  bool present = false;
  RawLinear query_projection;
  RawLinear key_projection;
  RawLinear value_projection;
  RawLinear output_projection;
  std::int32_t num_heads = 0;
  std::int32_t num_kv_heads = 0;
};

// attend.v1.AttentionOptions.
struct RawOptions {
  AttentionOptions values;     // Those of kScalarOptions alone,
  FloatScalars float_scalars;  // and their deprecated fields.
  EnumNumbers enums{};
  std::array<RawTensor, std::size(kPerHeadOptions)> per_head;
  std::array<RawIntegers, std::size(kLengthsOptions)> lengths;
  RawTensor mask;
  RawTensor key_mask;
  RawTensor bias;
  std::int32_t attention_weights_form = 0;
  std::int32_t top_k = 0;
};

// The repeated OutputKind of a request.
struct RawOutputs {
  static constexpr int kNumKinds = 9;  // OUTPUT_KIND_UNSPECIFIED .. OUTPUT_KIND_TOP_ATTENTION_WEIGHTS.

  struct Unknown {
    std::int64_t index;
    std::int32_t kind;
  };

  std::int64_t count = 0;
  std::array<std::int64_t, kNumKinds> first_index = {-1, -1, -1, -1, -1, -1, -1, -1, -1};  // Of each kind; -1: none.
  std::optional<Unknown> unknown;                                                          // The first.
};

// attend.v1.AttendRequest.
struct RawAttendRequest {
  RawTensor embeddings;
  RawTensor context;
  RawLayer layer;
  RawOptions options;
  RawOutputs outputs;
  RawText layer_name;
  RawText layer_etag;
  std::int64_t position_offset = 0;
  RawIntegers position_offsets;
};

// attend.v1.PartialAttention.
struct RawPartials {
  bool present = false;
  RawTensor output;
  RawTensor log_sum_exp;
};

// attend.v1.ScaledDotProductAttentionRequest.
struct RawSdpaRequest {
  RawTensor query;
  RawTensor key;
  RawTensor value;
  RawOptions options;
  RawOutputs outputs;
  RawPartials partials;
  std::int32_t layout = 0;
};

// Read a whole message. Errors: those of WireReader. REQUIRES: `request` is as constructed.
absl::Status ReadAttendRequest(const WireBytes& bytes, RawAttendRequest& request);
absl::Status ReadSdpaRequest(const WireBytes& bytes, RawSdpaRequest& request);

// The numbers that lead from a request to one of its fields; `options.bias.values` is {4, 8, 4}.
class FieldPath {
 public:
  static constexpr std::size_t kMaxLength = 4;

  constexpr FieldPath(std::initializer_list<std::uint32_t> numbers) {
    for (const std::uint32_t number : numbers) numbers_[length_++] = number;
  }

  // The path of a field of the message at this path. REQUIRES: fewer than kMaxLength numbers so far.
  constexpr FieldPath operator/(std::uint32_t number) const {
    FieldPath path = *this;
    path.numbers_[path.length_++] = number;
    return path;
  }

  absl::Span<const std::uint32_t> numbers() const { return {numbers_.data(), length_}; }

 private:
  std::array<std::uint32_t, kMaxLength> numbers_{};
  std::size_t length_ = 0;
};

// Calls visit(i, reader, field) for every field at paths[i], all in one pass and in the order of the wire. `reader` is
// the one that `field` came from. `active` has a bit for each path that leads through the message of `reader`, which is
// `depth` messages deep. REQUIRES: the message was read before without an error; at most 32 paths, none empty.
template <typename Visit>
void VisitFields(WireReader reader, absl::Span<const FieldPath> paths, Visit visit, std::uint32_t active = ~0u,
                 std::size_t depth = 0) {
  WireField field;
  while (reader.Next(field)) {
    std::uint32_t below = 0;
    for (std::size_t i = 0; i < paths.size(); ++i) {
      const absl::Span<const std::uint32_t> numbers = paths[i].numbers();
      if ((active >> i & 1) == 0 || numbers[depth] != field.number) continue;
      if (depth + 1 == numbers.size()) {
        visit(i, reader, field);
      } else {
        below |= 1u << i;
      }
    }
    if (below == 0 || field.type != WireType::kLengthDelimited) continue;
    VisitFields<Visit&>(reader.Message(field), paths, visit, below, depth + 1);
  }
}

// Calls visit(value) for each integer in one field of a repeated integer field, packed or not; ignores other wire
// types, as protobuf does. Errors: those of WireReader.
template <typename Visit>
absl::Status VisitIntegers(const WireReader& reader, const WireField& field, Visit visit) {
  if (field.type == WireType::kVarint) visit(field.value);
  if (field.type != WireType::kLengthDelimited) return absl::OkStatus();
  WireReader packed = reader.Packed(field);
  std::uint64_t value = 0;
  while (packed.NextVarint(value)) visit(value);
  return packed.status();
}

// Calls visit(value) for each number in one field of a repeated float field, packed or not; ignores other wire types.
// REQUIRES: the message was read before without an error.
template <typename Visit>
void VisitFloats(const WireReader& reader, const WireField& field, Visit visit) {
  if (field.type == WireType::kFixed32) visit(std::bit_cast<float>(static_cast<std::uint32_t>(field.value)));
  if (field.type != WireType::kLengthDelimited) return;
  WireReader packed = reader.Packed(field);
  std::uint32_t bits = 0;
  while (packed.NextFixed32(bits)) visit(std::bit_cast<float>(bits));
}

}  // namespace attend::server

#endif  // ATTEND_SERVER_WIRE_REQUEST_READER_H_
