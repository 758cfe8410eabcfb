#include "server/wire/wire_format.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/base/protocol.h"

namespace attend::server {
namespace {

constexpr std::uint32_t kStartGroup = 3;
constexpr std::uint32_t kEndGroup = 4;
constexpr int kMaxTagBytes = 5;
constexpr int kMaxVarintBytes = 10;
// Protobuf keeps this distance from 2 GiB.
constexpr std::uint64_t kMaxLength = std::numeric_limits<std::int32_t>::max() - 16;

}  // namespace

WireBytes::WireBytes(const grpc::ByteBuffer& message) {
  if (!message.Valid()) return;
  grpc::Slice only;
  std::vector<grpc::Slice> several;
  if (message.TrySingleSlice(&only).ok()) {
    slices_.push_back(std::move(only));
  } else if (message.Dump(&several).ok()) {
    slices_.assign(several.begin(), several.end());
  }
  ends_.reserve(slices_.size());
  std::int64_t end = 0;
  for (const grpc::Slice& slice : slices_) ends_.push_back(end += static_cast<std::int64_t>(slice.size()));
}

std::size_t WireBytes::SliceAt(std::int64_t position) const {
  return static_cast<std::size_t>(std::upper_bound(ends_.begin(), ends_.end(), position) - ends_.begin());
}

absl::Span<const std::uint8_t> WireBytes::PieceAt(std::int64_t position) const {
  const std::size_t i = SliceAt(position);
  const grpc::Slice& slice = slices_[i];
  return absl::MakeConstSpan(slice.end() - (ends_[i] - position), slice.end());
}

void WireBytes::Copy(ByteRange range, void* destination) const {
  auto* out = static_cast<std::uint8_t*>(destination);
  while (!range.empty()) {
    const absl::Span<const std::uint8_t> piece =
        PieceAt(range.begin).subspan(0, static_cast<std::size_t>(range.size()));
    std::memcpy(out, piece.data(), piece.size());
    out += piece.size();
    range.begin += static_cast<std::int64_t>(piece.size());
  }
}

void WireBytes::Share(ByteRange range, std::vector<grpc::Slice>& slices) const {
  while (!range.empty()) {
    const std::size_t i = SliceAt(range.begin);
    const std::int64_t first = ends_[i] - static_cast<std::int64_t>(slices_[i].size());
    const std::int64_t end = std::min(ends_[i], range.end);
    slices.push_back(
        slices_[i].sub(static_cast<std::size_t>(range.begin - first), static_cast<std::size_t>(end - first)));
    range.begin = end;
  }
}

absl::Status MalformedRequest(std::int64_t byte_position, std::string_view what) {
  const absl::string_view text(what.data(), what.size());
  return WithDetails(
      absl::InvalidArgumentError(absl::StrCat("the request is not valid protobuf at byte ", byte_position, ": ", text,
                                              "; send a serialized message of the type that this method takes")),
      {.reason = reason::kMalformedRequest, .metadata = {{"byte_position", absl::StrCat(byte_position)}}});
}

WireReader::WireReader(const WireBytes& bytes, ByteRange range, int depth)
    : bytes_(&bytes), end_(range.end), depth_(depth) {
  Seek(range.begin);
  if (depth_ < 0) Fail("messages nest too deep");
}

void WireReader::Seek(std::int64_t position) {
  const std::int64_t ahead = position - Position();
  if (ahead >= 0 && ahead < static_cast<std::int64_t>(piece_.size())) {
    piece_.remove_prefix(static_cast<std::size_t>(ahead));
    return;
  }
  piece_ = {};
  piece_end_ = position;
}

bool WireReader::Fail(std::string_view what) {
  if (status_.ok()) status_ = MalformedRequest(element_, what);
  return false;
}

bool WireReader::ReadByte(std::uint8_t& byte) {
  if (piece_.empty()) {
    if (piece_end_ == end_) return Fail("the message ends within a field");
    piece_ = bytes_->PieceAt(piece_end_).subspan(0, static_cast<std::size_t>(end_ - piece_end_));
    piece_end_ += static_cast<std::int64_t>(piece_.size());
  }
  byte = piece_.front();
  piece_.remove_prefix(1);
  return true;
}

bool WireReader::ReadVarint(int max_bytes, std::uint64_t& value) {
  value = 0;
  for (int i = 0; i < max_bytes; ++i) {
    std::uint8_t byte = 0;
    if (!ReadByte(byte)) return false;
    value |= static_cast<std::uint64_t>(byte & 0x7F) << (7 * i);
    if (byte < 0x80) return true;
  }
  return Fail(absl::StrCat("a variable-length integer has more than ", max_bytes, " bytes"));
}

bool WireReader::ReadTag(Tag& tag) {
  element_ = Position();
  std::uint64_t value = 0;
  if (!ReadVarint(kMaxTagBytes, value)) return false;
  const auto truncated = static_cast<std::uint32_t>(value);
  tag = {truncated >> 3, truncated & 7};
  return tag.number != 0 || Fail("field number 0 does not exist");
}

bool WireReader::ReadLength(ByteRange& range) {
  std::uint64_t length = 0;
  if (!ReadVarint(kMaxTagBytes, length)) return false;
  range.begin = Position();
  if (length > kMaxLength || static_cast<std::int64_t>(length) > end_ - range.begin) {
    return Fail(absl::StrCat("a field claims ", length, " bytes, but ", end_ - range.begin, " are left"));
  }
  range.end = range.begin + static_cast<std::int64_t>(length);
  Seek(range.end);
  return true;
}

bool WireReader::ReadFixed(int size, std::uint64_t& value) {
  value = 0;
  for (int i = 0; i < size; ++i) {
    std::uint8_t byte = 0;
    if (!ReadByte(byte)) return false;
    value |= static_cast<std::uint64_t>(byte) << (8 * i);
  }
  return true;
}

bool WireReader::ReadValue(std::uint32_t type, WireField& field) {
  field.type = static_cast<WireType>(type);
  switch (field.type) {
    case WireType::kVarint: return ReadVarint(kMaxVarintBytes, field.value);
    case WireType::kFixed64: return ReadFixed(8, field.value);
    case WireType::kLengthDelimited: return ReadLength(field.range);
    case WireType::kFixed32: return ReadFixed(4, field.value);
  }
  return Fail(type == kEndGroup ? absl::StrCat("group ", field.number, " ends without a beginning")
                                : absl::StrCat("wire type ", type, " does not exist"));
}

bool WireReader::SkipGroup(std::uint32_t number) {
  std::array<std::uint32_t, kMaxDepth> open;  // The groups within groups that are open.
  int count = 0;
  for (Tag tag{number, kStartGroup};;) {
    if (tag.type == kStartGroup) {
      if (count == depth_) return Fail("groups nest too deep");
      open[static_cast<std::size_t>(count++)] = tag.number;
    } else if (tag.type == kEndGroup) {
      if (tag.number != open[static_cast<std::size_t>(--count)]) return Fail("a group ends that is not the open one");
      if (count == 0) return true;
    } else {
      WireField ignored{.number = tag.number};
      if (!ReadValue(tag.type, ignored)) return false;
    }
    if (!ReadTag(tag)) return false;
  }
}

bool WireReader::Next(WireField& field) {
  while (status_.ok() && !AtEnd()) {
    Tag tag;
    if (!ReadTag(tag)) return false;
    field.number = tag.number;
    if (tag.type != kStartGroup) return ReadValue(tag.type, field);
    if (!SkipGroup(tag.number)) return false;
  }
  return false;
}

bool WireReader::NextVarint(std::uint64_t& value) {
  if (!status_.ok() || AtEnd()) return false;
  element_ = Position();
  return ReadVarint(kMaxVarintBytes, value);
}

bool WireReader::NextFixed32(std::uint32_t& value) {
  if (!status_.ok() || AtEnd()) return false;
  element_ = Position();
  std::uint64_t wide = 0;
  if (!ReadFixed(4, wide)) return false;
  value = static_cast<std::uint32_t>(wide);
  return true;
}

}  // namespace attend::server
