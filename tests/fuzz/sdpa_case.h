// Turns arbitrary bytes into a scaled dot-product attention problem, valid or not.
#ifndef ATTEND_TESTS_FUZZ_SDPA_CASE_H_
#define ATTEND_TESTS_FUZZ_SDPA_CASE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "core/problem/sdpa_problem.h"

namespace attend::testing {

// Reads values off the front of some bytes; zeros once they have run out.
class ByteReader {
 public:
  ByteReader(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

  template <typename T>
  T Read() {
    T value{};
    const std::size_t count = std::min(sizeof(T), size_);
    if (count > 0) std::memcpy(&value, data_, count);
    data_ += count;
    size_ -= count;
    return value;
  }
  std::uint8_t Byte() { return Read<std::uint8_t>(); }
  bool Bit() { return (Byte() & 1) != 0; }
  // In [low, high], low most likely once the bytes have run out.
  std::int64_t InRange(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(Read<std::uint16_t>() % static_cast<std::uint64_t>(high - low + 1));
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

// A problem and the memory it views. Every tensor has a heap block of exactly its size, so that AddressSanitizer sees
// the first element read beyond it.
class SdpaCase {
 public:
  SdpaCase(const std::uint8_t* data, std::size_t size);
  SdpaCase(const SdpaCase&) = delete;
  SdpaCase& operator=(const SdpaCase&) = delete;

  const SdpaProblem::Spec& spec() const { return spec_; }
  // The same with query, key and value as FLOAT32: exactly the same numbers, if those are of 16 bits.
  const SdpaProblem::Spec& wide_spec() const { return wide_spec_; }
  std::int64_t top_k() const { return top_k_; }
  bool top_per_head() const { return top_per_head_; }

 private:
  HeadsView Tensor(ByteReader& reader, std::int64_t heads, std::int64_t length, std::int64_t dim);
  float* Floats(std::int64_t count, float magnitude);
  // `count` bytes, of which about `visible_of_256` in 256 are not zero.
  std::unique_ptr<std::uint8_t[]> MaskBytes(std::int64_t count, std::uint32_t visible_of_256);
  // `view` with some axes of size 1, and its number of elements.
  template <typename T>
  std::int64_t Broadcast(ByteReader& reader, BasicHeadsView<T>& view);
  void ReadScalars(ByteReader& reader);
  void ReadLengths(ByteReader& reader);
  void ReadMask(ByteReader& reader);
  void ReadBias(ByteReader& reader);
  void ReadPerHead(ByteReader& reader);
  void Poison(ByteReader& reader);
  // These come last, so that inputs from before they were here mean what they meant.
  void ReadSequences(ByteReader& reader);
  void ReadTypes(ByteReader& reader);
  void SetEdges(ByteReader& reader);
  void ReadKeyMask(ByteReader& reader);
  void Retype();
  TypedHeadsView Retyped(const TypedHeadsView& view, DataType type);
  std::uint32_t NextRandom();

  std::int64_t batch_ = 1, heads_ = 1, queries_ = 1, keys_ = 1;
  std::uint32_t random_ = 1;
  std::vector<std::unique_ptr<float[]>> floats_;
  std::vector<std::int64_t> float_counts_;
  std::unique_ptr<std::uint8_t[]> mask_, key_mask_;
  std::vector<std::int64_t> valid_lengths_, query_lengths_, query_offsets_, key_offsets_;
  std::vector<std::unique_ptr<std::byte[]>> retyped_;
  DataType types_[3] = {DataType::kFloat32, DataType::kFloat32, DataType::kFloat32};  // Of query, key and value.
  std::int64_t top_k_ = 0;
  bool top_per_head_ = false;
  SdpaProblem::Spec spec_, wide_spec_;
};

}  // namespace attend::testing

#endif  // ATTEND_TESTS_FUZZ_SDPA_CASE_H_
