#include "server/http/http_body_reader.h"

#include <algorithm>
#include <utility>

namespace attend::server {
namespace {

constexpr std::size_t kFirstBlock = 4 << 10;  // Of a body of unknown length.
constexpr std::size_t kBlock = PageStringBytes(16);
constexpr std::size_t kMaxLine = 1024;  // A chunk's size with its extensions, or a trailer.

// Hexadecimal, up to eight digits; nothing for anything else.
std::optional<std::uint64_t> ChunkSize(std::string_view line) {
  const std::string_view digits = line.substr(0, line.find_first_of("; \t"));
  const std::size_t next = line.find_first_not_of(" \t", digits.size());
  if (next != std::string_view::npos && line[next] != ';') return std::nullopt;
  if (digits.empty() || digits.size() > 8) return std::nullopt;
  std::uint64_t size = 0;
  for (const char c : digits) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    size = size * 16 + static_cast<std::uint64_t>(digit);
  }
  return size;
}

}  // namespace

HttpBodyReader::HttpBodyReader(std::optional<std::uint64_t> length, std::size_t max_bytes, std::size_t max_overhead)
    : chunked_(!length.has_value()),
      max_bytes_(max_bytes),
      max_overhead_(max_overhead),
      state_(chunked_       ? State::kSize
             : length == 0U ? State::kDone
                            : State::kData),
      left_(length.value_or(0)) {}

std::size_t HttpBodyReader::NextBlock() const {
  const std::size_t usual = chunked_ && held_ == 0 ? kFirstBlock : kBlock;
  return chunked_ ? usual : static_cast<std::size_t>(std::min<std::uint64_t>(left_, usual));
}

void HttpBodyReader::CloseBlock() {
  if (block_.empty()) return;
  auto* owned = new PageString(std::move(block_));
  slices_.emplace_back(
      owned->data(), owned->size(), [](void* text) { delete static_cast<PageString*>(text); }, owned);
  block_.clear();
}

void HttpBodyReader::Grow() {
  CloseBlock();
  block_bytes_ = NextBlock();
  held_ += block_bytes_;
  block_.reserve(block_bytes_);
}

HttpBodyReader::Result HttpBodyReader::Take(std::string_view& bytes) {
  if (!chunked_ && size_ + left_ > max_bytes_) return Result::kTooLong;
  while (state_ != State::kDone) {
    if (bytes.empty()) return Result::kMore;
    const Result result = state_ == State::kData ? TakeData(bytes) : TakeLines(bytes);
    if (result != Result::kDone) return result;
  }
  return Result::kDone;
}

// kDone: goes on in the next state.
HttpBodyReader::Result HttpBodyReader::TakeData(std::string_view& bytes) {
  const std::size_t wanted = static_cast<std::size_t>(std::min<std::uint64_t>(left_, bytes.size()));
  const std::size_t room = block_bytes_ - block_.size();
  if (room == 0) return Result::kGrow;
  const std::size_t taken = std::min(wanted, room);
  block_.append(bytes.data(), taken);
  bytes.remove_prefix(taken);
  left_ -= taken;
  size_ += taken;
  if (left_ == 0) state_ = chunked_ ? State::kDataEnd : State::kDone;
  return Result::kDone;
}

HttpBodyReader::Result HttpBodyReader::TakeLines(std::string_view& bytes) {
  const std::size_t end = bytes.find('\n');
  const std::size_t taken = end == std::string_view::npos ? bytes.size() : end + 1;
  if (line_.size() + taken > kMaxLine) return Result::kMalformed;
  line_.append(bytes.data(), taken);
  bytes.remove_prefix(taken);
  if (end == std::string_view::npos) return Result::kMore;
  overhead_ += line_.size();
  // Honest chunks are not as small as their lines: those that are may be as many as the bound of headers allows.
  if (overhead_ > max_overhead_ + size_) return Result::kMalformed;
  if (line_.size() < 2 || line_[line_.size() - 2] != '\r') return Result::kMalformed;
  line_.resize(line_.size() - 2);
  if (!EndLine()) return Result::kMalformed;
  line_.clear();
  return size_ + left_ > max_bytes_ ? Result::kTooLong : Result::kDone;
}

bool HttpBodyReader::EndLine() {
  if (state_ == State::kTrailer) {
    if (line_.empty()) state_ = State::kDone;
    return true;
  }
  if (state_ == State::kDataEnd) {
    state_ = State::kSize;
    return line_.empty();
  }
  const std::optional<std::uint64_t> size = ChunkSize(line_);
  if (!size.has_value()) return false;
  left_ = *size;
  state_ = left_ == 0 ? State::kTrailer : State::kData;
  return true;
}

grpc::ByteBuffer HttpBodyReader::TakeBody() {
  CloseBlock();
  if (slices_.empty()) slices_.emplace_back(std::string());
  grpc::ByteBuffer body(slices_.data(), slices_.size());
  slices_.clear();
  return body;
}

}  // namespace attend::server
