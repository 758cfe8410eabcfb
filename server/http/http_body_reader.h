// Takes the body of one request off what a connection has read, and keeps it in blocks.
//
// A body in chunks (RFC 9112, section 7.1) is read here because Boost.Beast 1.74 fails an assertion when a chunk's
// header comes in pieces. Extensions of chunks and trailers are skipped; both count against the bound of headers.
//
// Thread-compatible.
#ifndef ATTEND_SERVER_HTTP_HTTP_BODY_READER_H_
#define ATTEND_SERVER_HTTP_HTTP_BODY_READER_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/wire/page_string.h"

namespace attend::server {

class HttpBodyReader {
 public:
  enum class Result : std::uint8_t {
    kMore,       // All bytes were taken, and more must follow.
    kGrow,       // The next block has bytes_after_growth(): call Grow, and then Take with what is left.
    kDone,       // The body is complete; what is left belongs to the next request.
    kTooLong,    // Longer than `max_bytes`.
    kMalformed,  // No chunks as HTTP has them, or too much beside them.
  };

  // `length`: Content-Length; nothing for a body in chunks. `max_overhead`: bytes of extensions, trailers and sizes
  // that do not count as body; what a chunk needs at least is allowed for each block's worth of body.
  HttpBodyReader(std::optional<std::uint64_t> length, std::size_t max_bytes, std::size_t max_overhead);

  // Takes from the front of `bytes`, which then holds what is left.
  Result Take(std::string_view& bytes);
  std::size_t bytes_after_growth() const { return held_ + NextBlock(); }
  void Grow();

  // REQUIRES: Take returned kDone.
  grpc::ByteBuffer TakeBody();

 private:
  enum class State : std::uint8_t { kSize, kData, kDataEnd, kTrailer, kDone };

  std::size_t NextBlock() const;
  Result TakeData(std::string_view& bytes);
  // A line's end is reached: false when it is no line as it must be.
  bool EndLine();
  Result TakeLines(std::string_view& bytes);
  void CloseBlock();

  const bool chunked_;
  const std::size_t max_bytes_;
  const std::size_t max_overhead_;
  State state_;
  std::uint64_t left_ = 0;    // Of the body with a length, or of the chunk.
  std::size_t size_ = 0;      // Of the body so far.
  std::size_t overhead_ = 0;  // Bytes of lines.
  std::string line_;
  PageString block_;             // The last one.
  std::size_t block_bytes_ = 0;  // Room that it has.
  std::size_t held_ = 0;         // Memory of all blocks.
  std::vector<grpc::Slice> slices_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_HTTP_HTTP_BODY_READER_H_
