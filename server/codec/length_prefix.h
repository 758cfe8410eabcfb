// The tag and length that come before the payload of a length-delimited field, as protobuf writes them.
//
// Pure; may be called concurrently.
#ifndef ATTEND_SERVER_CODEC_LENGTH_PREFIX_H_
#define ATTEND_SERVER_CODEC_LENGTH_PREFIX_H_

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/wire_format_lite.h>

#include <cstdint>
#include <string>

namespace attend::server {

// REQUIRES: length >= 0.
inline std::string LengthPrefix(int field_number, std::int64_t length) {
  using google::protobuf::internal::WireFormatLite;
  std::string prefix;
  {
    google::protobuf::io::StringOutputStream stream(&prefix);
    google::protobuf::io::CodedOutputStream out(&stream);
    out.WriteTag(WireFormatLite::MakeTag(field_number, WireFormatLite::WIRETYPE_LENGTH_DELIMITED));
    out.WriteVarint64(static_cast<std::uint64_t>(length));
  }
  return prefix;
}

}  // namespace attend::server

#endif  // ATTEND_SERVER_CODEC_LENGTH_PREFIX_H_
