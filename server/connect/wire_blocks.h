// Bytes of a protobuf message that are written in order, into blocks that never move: nothing is copied when it grows.
//
// What is written between Begin and End is a field's payload; its length is filled in at the end, in the five bytes
// that a length may have at most.
//
// Thread-compatible.
#ifndef ATTEND_SERVER_CONNECT_WIRE_BLOCKS_H_
#define ATTEND_SERVER_CONNECT_WIRE_BLOCKS_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "server/wire/page_string.h"

namespace attend::server {

class WireBlocks {
 public:
  void Byte(std::uint8_t byte) {
    if (blocks_.empty() || blocks_.back().size() == kBlock) NewBlock();
    blocks_.back() += static_cast<char>(byte);
  }
  void Varint(std::uint64_t value) {
    for (; value > 0x7F; value >>= 7) Byte(static_cast<std::uint8_t>(value | 0x80));
    Byte(static_cast<std::uint8_t>(value));
  }
  // The `bytes` low ones of `value`, the lowest first.
  void Fixed(std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) Byte(static_cast<std::uint8_t>(value >> (8 * i)));
  }

  // Where the payload begins, for End.
  std::size_t Begin() {
    Fixed(0, kLengthBytes);
    return size();
  }
  // REQUIRES: `begin` came from Begin; the payload is shorter than 4 GiB.
  void End(std::size_t begin) {
    std::size_t length = size() - begin;
    for (std::size_t i = begin - kLengthBytes; i < begin; ++i, length >>= 7) {
      blocks_[i / kBlock][i % kBlock] = static_cast<char>((length & 0x7F) | (i + 1 < begin ? 0x80 : 0));
    }
  }

  std::size_t size() const { return blocks_.empty() ? 0 : (blocks_.size() - 1) * kBlock + blocks_.back().size(); }

  // All of them; nothing is left.
  grpc::ByteBuffer Take() {
    std::vector<grpc::Slice> slices;
    slices.reserve(blocks_.size());
    for (PageString& block : blocks_) {
      auto* owned = new PageString(std::move(block));
      slices.emplace_back(
          owned->data(), owned->size(), [](void* text) { delete static_cast<PageString*>(text); }, owned);
    }
    blocks_.clear();
    if (slices.empty()) slices.emplace_back(std::string());
    return grpc::ByteBuffer(slices.data(), slices.size());
  }

 private:
  static constexpr std::size_t kBlock = PageStringBytes(16);
  static constexpr int kLengthBytes = 5;

  void NewBlock() {
    blocks_.emplace_back();
    if (blocks_.size() > 1) blocks_.back().reserve(kBlock);  // The first is as small as the message.
  }

  std::vector<PageString> blocks_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONNECT_WIRE_BLOCKS_H_
