// Holds the server's own wire reader to protobuf's parser: the oracle of the differential test and of the fuzz target.
#ifndef ATTEND_TESTS_SUPPORT_READER_VS_PROTOBUF_H_
#define ATTEND_TESTS_SUPPORT_READER_VS_PROTOBUF_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <string>
#include <string_view>

namespace attend::server {

// `bytes` as the transport might deliver them: slices of `slice_size` bytes with empty ones between them; a single one
// when `slice_size` is 0.
grpc::ByteBuffer Sliced(std::string_view bytes, std::size_t slice_size);

// Parses `bytes` with both, as the named message. Returns the first difference, be it of the verdict or of a field;
// empty when there is none. `accepted`, if given, is set to protobuf's verdict.
std::string CompareAttendRequest(std::string_view bytes, std::size_t slice_size, bool* accepted = nullptr);
std::string CompareSdpaRequest(std::string_view bytes, std::size_t slice_size, bool* accepted = nullptr);

// The same for bytes that are sliced already: `buffer` holds `bytes`.
std::string CompareAttendRequest(std::string_view bytes, const grpc::ByteBuffer& buffer, bool* accepted = nullptr);
std::string CompareSdpaRequest(std::string_view bytes, const grpc::ByteBuffer& buffer, bool* accepted = nullptr);

// The same for StreamAttendRequest, the request within included. Verdicts may differ in three cases in which we are the
// more lenient, and then only differ that way: messages that nest exactly 101 deep, a request in several parts that are
// well-formed only one behind the other, and one that is not well-formed and that a request of the other kind replaces.
std::string CompareStreamRequest(std::string_view bytes, const grpc::ByteBuffer& buffer, bool* accepted = nullptr);

}  // namespace attend::server

#endif  // ATTEND_TESTS_SUPPORT_READER_VS_PROTOBUF_H_
