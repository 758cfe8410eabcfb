// Writes the few bytes of protobuf's wire format that stand before what was computed, as protobuf's own serializer
// would.
//
// Appends to strings: what stands before a small tensor fits into a string without memory of its own, and this is done
// for every response.
//
// Pure functions; may be called concurrently.
#ifndef ATTEND_SERVER_WIRE_WIRE_WRITER_H_
#define ATTEND_SERVER_WIRE_WIRE_WRITER_H_

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace attend::server {

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

#endif  // ATTEND_SERVER_WIRE_WIRE_WRITER_H_
