// Protobuf's wire format: read where the transport left it, without building message objects and without copying, and
// written as protobuf's own serializer would.
//
//   WireReader reader(bytes);
//   WireField field;
//   while (reader.Next(field)) {
//     if (field.number == 1 && field.type == WireType::kVarint) ...
//   }
//   if (!reader.status().ok()) return reader.status();
//
// A reader accepts and rejects exactly what protobuf's own parser does: unknown fields and groups are skipped, tags
// and lengths take at most 5 bytes and varints at most 10, of which the bits beyond the 32nd or 64th are dropped, field
// number 0 is an error, and messages and groups nest at most 100 deep. What a known field with another wire type means
// (skip it) is the caller's to do, as is merging a message that appears twice.
//
// Format: https://protobuf.dev/programming-guides/encoding/
#ifndef ATTEND_SERVER_WIRE_WIRE_FORMAT_H_
#define ATTEND_SERVER_WIRE_WIRE_FORMAT_H_

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/byte_buffer.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/types/span.h"

namespace attend::server {

// The bytes [begin, end) of a message, counted from its first byte. 0 <= begin <= end <= size of the message.
struct ByteRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;

  std::int64_t size() const { return end - begin; }
  bool empty() const { return begin == end; }
};

// The bytes of one message as the sequence of slices that the transport delivered (typically one per HTTP/2 frame of
// 16 KiB). Shares ownership of the slices. Immutable; may be used concurrently.
class WireBytes {
 public:
  // A buffer without contents is an empty message.
  explicit WireBytes(const grpc::ByteBuffer& message);
  WireBytes(const WireBytes&) = delete;
  WireBytes& operator=(const WireBytes&) = delete;

  std::int64_t size() const { return ends_.empty() ? 0 : ends_.back(); }

  // The bytes from `position` to the end of its slice; at least one. REQUIRES: 0 <= position < size().
  absl::Span<const std::uint8_t> PieceAt(std::int64_t position) const;

  // Copies `range` to `destination`, which has room for range.size() bytes. REQUIRES: range lies within the message.
  void Copy(ByteRange range, void* destination) const;

  // Appends to `slices` references to the bytes of `range`; nothing is copied. REQUIRES: as Copy.
  void Share(ByteRange range, std::vector<grpc::Slice>& slices) const;

 private:
  // The slice that `position` lies in. REQUIRES: 0 <= position < size().
  std::size_t SliceAt(std::int64_t position) const;

  // A small message is one slice.
  absl::InlinedVector<grpc::Slice, 1> slices_;
  absl::InlinedVector<std::int64_t, 1> ends_;  // Where each slice ends, in bytes from the message's first.
};

// The wire types that Next returns; groups are skipped.
enum class WireType : std::uint8_t { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };

// One field as it stands on the wire.
struct WireField {
  std::uint32_t number = 0;  // In [1, 2^29).
  WireType type = WireType::kVarint;
  std::uint64_t value = 0;  // Of kVarint, kFixed32 (zero-extended) and kFixed64.
  ByteRange range;          // Of kLengthDelimited: the payload.
};

// INVALID_ARGUMENT with reason MALFORMED_REQUEST and, as metadata `byte_position`, where the offending element starts.
// It names no field: it is about the message as a whole. `what` completes "the request is not valid protobuf: ".
absl::Status MalformedRequest(std::int64_t byte_position, std::string_view what);

// A forward cursor over one message, or over one packed field, of `bytes`, which must outlive it. A small value;
// thread-compatible.
class WireReader {
 public:
  // Reads the whole of `bytes` as a message.
  explicit WireReader(const WireBytes& bytes) : WireReader(bytes, {0, bytes.size()}, kMaxDepth) {}

  // Reads the next field, stepping over groups. Returns false at the end and at the first error, which status() tells.
  bool Next(WireField& field);

  // A reader of `field`'s payload as a message. REQUIRES: `field` came from this reader; its type is kLengthDelimited.
  WireReader Message(const WireField& field) const { return WireReader(*bytes_, field.range, depth_ - 1); }

  // A reader of `field`'s payload as packed numbers, for NextVarint or NextFixed32. REQUIRES: as Message.
  WireReader Packed(const WireField& field) const { return WireReader(*bytes_, field.range, depth_); }
  bool NextVarint(std::uint64_t& value);
  bool NextFixed32(std::uint32_t& value);

  // OK, or MalformedRequest.
  const absl::Status& status() const { return status_; }

  const WireBytes& bytes() const { return *bytes_; }

 private:
  static constexpr int kMaxDepth = 100;

  struct Tag {
    std::uint32_t number = 0;
    std::uint32_t type = 0;
  };

  WireReader(const WireBytes& bytes, ByteRange range, int depth);

  std::int64_t Position() const { return piece_end_ - static_cast<std::int64_t>(piece_.size()); }
  bool AtEnd() const { return piece_.empty() && piece_end_ == end_; }
  void Seek(std::int64_t position);
  // Records what is wrong with the element that started at `element_`; always false.
  bool Fail(std::string_view what);

  bool ReadByte(std::uint8_t& byte);
  // At most `max_bytes` of seven bits each; bits beyond the 64th are dropped.
  bool ReadVarint(int max_bytes, std::uint64_t& value);
  bool ReadTag(Tag& tag);
  bool ReadLength(ByteRange& range);
  bool ReadFixed(int size, std::uint64_t& value);
  bool ReadValue(std::uint32_t type, WireField& field);
  bool SkipGroup(std::uint32_t number);

  const WireBytes* bytes_;
  absl::Span<const std::uint8_t> piece_;  // What is left of the current slice, within the range.
  std::int64_t piece_end_ = 0;            // Where it ends in the message.
  std::int64_t end_ = 0;                  // Where the range ends in the message.
  std::int64_t element_ = 0;              // Where the element being read started.
  int depth_ = 0;                         // How much deeper messages and groups may nest.
  absl::Status status_;
};

// Calls visit(field), which returns a status, for every field that is left; returns the first error.
template <typename Visit>
absl::Status ForEachField(WireReader& reader, Visit visit) {
  WireField field;
  while (reader.Next(field)) {
    if (absl::Status status = visit(field); !status.ok()) return status;
  }
  return reader.status();
}

// Append to strings: what stands before a small tensor fits into a string without memory of its own, and this is done
// for every response.

inline void AppendVarint(std::uint64_t value, std::string& out) {
  std::array<std::uint8_t, 10> bytes;
  const std::uint8_t* end = google::protobuf::io::CodedOutputStream::WriteVarint64ToArray(value, bytes.data());
  out.append(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(end - bytes.data()));
}

// The tag of a field whose value is a varint. REQUIRES: the value follows.
inline void AppendVarintTag(int field_number, std::string& out) {
  using google::protobuf::internal::WireFormatLite;
  AppendVarint(WireFormatLite::MakeTag(field_number, WireFormatLite::WIRETYPE_VARINT), out);
}

// The tag and length of a length-delimited field. REQUIRES: length >= 0; as many bytes follow.
inline void AppendLengthPrefix(int field_number, std::int64_t length, std::string& out) {
  using google::protobuf::internal::WireFormatLite;
  AppendVarint(WireFormatLite::MakeTag(field_number, WireFormatLite::WIRETYPE_LENGTH_DELIMITED), out);
  AppendVarint(static_cast<std::uint64_t>(length), out);
}

}  // namespace attend::server

#endif  // ATTEND_SERVER_WIRE_WIRE_FORMAT_H_
