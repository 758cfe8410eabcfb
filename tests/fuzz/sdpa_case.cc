#include "tests/fuzz/sdpa_case.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/problem/sequences.h"
#include "tests/support/typed_tensor.h"

namespace attend::testing {
namespace {

// Sizes around those of vectors, tiles and blocks; seldom the large ones, whose reference is slow.
std::int64_t KeyLength(ByteReader& reader) {
  const std::uint8_t kind = reader.Byte();
  if (kind < 160) return reader.InRange(1, 40);
  if (kind < 240) return reader.InRange(41, 200);
  return reader.InRange(1000, 1100);
}

std::int64_t QueryLength(ByteReader& reader) {
  return reader.Byte() < 200 ? reader.InRange(1, 12) : reader.InRange(13, 100);
}

std::int64_t Dim(ByteReader& reader) { return reader.Byte() < 220 ? reader.InRange(1, 20) : reader.InRange(21, 140); }

// Bounds the time of one input: multiplications in the reference.
constexpr std::int64_t kMostProducts = 1'000'000;

constexpr float kMagnitudes[] = {1.0f, 0.1f, 4.0f, 30.0f, 1e-20f, 0.0f};
constexpr float kPoison[] = {std::numeric_limits<float>::quiet_NaN(),  std::numeric_limits<float>::infinity(),
                             -std::numeric_limits<float>::infinity(),  -0.0f,
                             std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::quiet_NaN()};
// Finite, but what is made of them may leave float32's range, or fall below it.
constexpr float kEdges[] = {std::numeric_limits<float>::lowest(),
                            std::numeric_limits<float>::max(),
                            3e38f,
                            -2.4e38f,
                            1e19f,
                            -4e19f,
                            1e-38f,
                            1e-41f};

}  // namespace

SdpaCase::SdpaCase(const std::uint8_t* data, std::size_t size) {
  ByteReader reader(data, size);
  random_ = reader.Read<std::uint32_t>() | 1;
  batch_ = reader.InRange(1, 2);
  const std::int64_t kv_heads = reader.InRange(1, 2);
  heads_ = kv_heads * reader.InRange(1, 3);
  queries_ = QueryLength(reader);
  keys_ = KeyLength(reader);
  const std::int64_t head_dim = Dim(reader), value_dim = Dim(reader);
  queries_ = std::clamp(kMostProducts / (batch_ * heads_ * keys_ * (head_dim + value_dim)), std::int64_t{1}, queries_);
  spec_.query = Tensor(reader, heads_, queries_, head_dim);
  spec_.key = Tensor(reader, kv_heads, keys_, head_dim);
  spec_.value = Tensor(reader, kv_heads, keys_, value_dim);
  ReadScalars(reader);
  ReadLengths(reader);
  ReadMask(reader);
  ReadBias(reader);
  ReadPerHead(reader);
  Poison(reader);
  ReadSequences(reader);
  ReadTypes(reader);
  top_k_ = reader.InRange(0, 8);
  top_per_head_ = reader.Bit();
  SetEdges(reader);
  ReadKeyMask(reader);
  Retype();
}

std::uint32_t SdpaCase::NextRandom() {  // Xorshift (Marsaglia 2003): enough for numbers that only need to differ.
  random_ ^= random_ << 13;
  random_ ^= random_ >> 17;
  random_ ^= random_ << 5;
  return random_;
}

float* SdpaCase::Floats(std::int64_t count, float magnitude) {
  floats_.push_back(std::make_unique<float[]>(static_cast<std::size_t>(count)));
  float_counts_.push_back(count);
  for (std::int64_t i = 0; i < count; ++i) {
    const double uniform = static_cast<double>(NextRandom()) / 4294967296.0 * 2 - 1;
    floats_.back()[static_cast<std::size_t>(i)] = magnitude * static_cast<float>(uniform);
  }
  return floats_.back().get();
}

HeadsView SdpaCase::Tensor(ByteReader& reader, std::int64_t heads, std::int64_t length, std::int64_t dim) {
  const float magnitude = kMagnitudes[reader.InRange(0, std::size(kMagnitudes) - 1)];
  const float* data = Floats(batch_ * heads * length * dim, magnitude);
  return reader.Bit() ? MergedHeads(data, batch_, heads, length, dim) : SplitHeads(data, batch_, heads, length, dim);
}

template <typename T>
std::int64_t SdpaCase::Broadcast(ByteReader& reader, BasicHeadsView<T>& view) {
  const std::uint8_t axes = reader.Byte();
  const std::int64_t batch = axes & 1 ? 1 : batch_, heads = axes & 2 ? 1 : heads_;
  const std::int64_t queries = axes & 4 ? 1 : queries_, keys = axes & 8 ? 1 : keys_;
  view = SplitHeads<T>(nullptr, batch, heads, queries, keys);
  return batch * heads * queries * keys;
}

void SdpaCase::ReadScalars(ByteReader& reader) {
  AttentionOptions& options = spec_.options;
  const std::uint8_t given = reader.Byte();
  constexpr CausalMode kModes[] = {CausalMode::kNone, CausalMode::kBottomRight, CausalMode::kTopLeft};
  options.causal = kModes[reader.InRange(0, 2)];
  if (given & 1) options.scale = static_cast<float>(reader.InRange(-100, 100)) / 64;
  if (given & 2) options.scale = reader.Read<float>();
  if (given & 4) options.softcap = static_cast<float>(reader.InRange(1, 4000)) / 64;
  if (given & 8) options.softcap = reader.Read<float>();
  if (given & 16) options.sliding_window_left = reader.InRange(0, 200);
  if (given & 32) options.sliding_window_right = reader.InRange(0, 200);
  if (given & 64) options.sliding_window_left = reader.Read<std::int64_t>();
  if (given & 128) options.sliding_window_right = reader.Read<std::int64_t>();
}

void SdpaCase::ReadLengths(ByteReader& reader) {
  const std::uint8_t given = reader.Byte();
  const bool allow_too_long = (given & 4) != 0;
  for (std::int64_t b = 0; b < batch_; ++b) {
    if (given & 1) valid_lengths_.push_back(reader.InRange(0, keys_ + allow_too_long));
    if (given & 2) query_lengths_.push_back(reader.InRange(0, queries_ + allow_too_long));
  }
  spec_.options.valid_lengths = valid_lengths_;
  spec_.options.query_lengths = query_lengths_;
}

std::unique_ptr<std::uint8_t[]> SdpaCase::MaskBytes(std::int64_t count, std::uint32_t visible_of_256) {
  auto mask = std::make_unique<std::uint8_t[]>(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {  // Any non-zero byte means visible.
    const std::uint32_t random = NextRandom();
    mask[static_cast<std::size_t>(i)] =
        random % 256 < visible_of_256 ? static_cast<std::uint8_t>(1 + (random >> 8) % 255) : 0;
  }
  return mask;
}

void SdpaCase::ReadMask(ByteReader& reader) {
  if (!reader.Bit()) return;
  const std::int64_t count = Broadcast(reader, spec_.options.mask);
  mask_ = MaskBytes(count, reader.Byte());
  spec_.options.mask.data = mask_.get();
}

void SdpaCase::ReadKeyMask(ByteReader& reader) {
  const std::uint8_t given = reader.Byte();
  if ((given & 1) == 0) return;
  const std::int64_t batch = given & 2 ? 1 : batch_, keys = given & 4 ? 1 : keys_;
  key_mask_ = MaskBytes(batch * keys, reader.Byte());
  spec_.options.key_mask = SplitHeads<const std::uint8_t>(key_mask_.get(), batch, 1, 1, keys);
}

void SdpaCase::ReadBias(ByteReader& reader) {
  if (!reader.Bit()) return;
  HeadsView view;
  const std::int64_t count = Broadcast(reader, view);
  float* bias = Floats(count, kMagnitudes[reader.InRange(0, std::size(kMagnitudes) - 1)]);
  const std::uint32_t excluded_of_256 = reader.Byte();
  for (std::int64_t i = 0; i < count; ++i) {  // The other way in which people mask.
    if (NextRandom() % 256 < excluded_of_256) bias[i] = -std::numeric_limits<float>::infinity();
  }
  view.data = bias;
  spec_.options.bias = view;
}

void SdpaCase::ReadPerHead(ByteReader& reader) {
  const std::uint8_t given = reader.Byte();
  const std::int64_t count = heads_ + ((given & 4) != 0);  // Sometimes one too many.
  const auto size = static_cast<std::size_t>(count);
  if (given & 1) spec_.options.alibi_slopes = absl::MakeConstSpan(Floats(count, 0.5f), size);
  if (given & 2) spec_.options.sinks = absl::MakeConstSpan(Floats(count, 10.0f), size);
}

void SdpaCase::Poison(ByteReader& reader) {
  for (std::int64_t left = reader.InRange(0, 6); left > 0; --left) {
    const auto tensor = static_cast<std::size_t>(reader.InRange(0, static_cast<std::int64_t>(floats_.size()) - 1));
    const auto element = static_cast<std::size_t>(reader.InRange(0, float_counts_[tensor] - 1));
    floats_[tensor][element] = kPoison[reader.InRange(0, std::size(kPoison) - 1)];
  }
}

// Where sequences end, in [0, total] and in order, but for some that are wrong.
std::vector<std::int64_t> Offsets(ByteReader& reader, std::int64_t sequences, std::int64_t total) {
  std::vector<std::int64_t> offsets = {0};
  for (std::int64_t n = 1; n < sequences; ++n) offsets.push_back(reader.InRange(0, total));
  std::sort(offsets.begin(), offsets.end());
  offsets.push_back(total);
  const std::uint8_t wrong = reader.Byte();
  if (wrong >= 250) offsets[wrong % offsets.size()] += reader.InRange(-2, 2);
  return offsets;
}

void SdpaCase::ReadSequences(ByteReader& reader) {
  const std::int64_t sequences = reader.InRange(0, 6);
  if (sequences == 0) return;
  AttentionOptions& options = spec_.options;
  query_offsets_ = Offsets(reader, sequences, queries_);
  key_offsets_ = Offsets(reader, sequences, keys_);
  options.cumulative_query_lengths = query_offsets_;
  options.cumulative_key_lengths = key_offsets_;
  std::int64_t columns = 1;  // Not ScoreColumns: they may be wrong.
  for (std::size_t n = 1; n < key_offsets_.size(); ++n)
    columns = std::max(columns, key_offsets_[n] - key_offsets_[n - 1]);
  if (options.mask && options.mask.dim > 1) options.mask.dim = columns;
  if (options.bias && options.bias.dim > 1) options.bias.dim = columns;
}

// Numbers of 16 bits are rounded where they come from too. Those of FLOAT64 get bits that FLOAT32 does not have.
TypedHeadsView SdpaCase::Retyped(const TypedHeadsView& view, DataType type) {
  const std::int64_t count = view.batch * view.heads * view.length * view.dim;  // Dense in both layouts.
  const auto bytes = static_cast<std::size_t>(count * ElementSize(type));
  retyped_.push_back(std::make_unique<std::byte[]>(bytes));
  auto* from = reinterpret_cast<float*>(const_cast<std::byte*>(view.data));  // One of floats_.
  VisitNumber(type, [&](auto zero) {
    auto* to = reinterpret_cast<decltype(zero)*>(retyped_.back().get());
    for (std::int64_t i = 0; i < count; ++i) {
      const double exact = type == DataType::kFloat64 ? 1 + 0x1p-56 * (NextRandom() % 0x1000000) : 1;
      to[i] = static_cast<decltype(zero)>(from[i] * exact);
      from[i] = static_cast<float>(to[i]);
    }
  });
  TypedHeadsView retyped = view;
  retyped.data = retyped_.back().get();
  retyped.type = type;
  return retyped;
}

void SdpaCase::ReadTypes(ByteReader& reader) {
  constexpr DataType kTypes[] = {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16};
  const std::uint8_t kind = reader.Byte();
  if (kind < 100) return;
  for (DataType& type : types_) {
    const DataType mixed = kTypes[reader.InRange(0, 2)];
    const DataType wanted = kind < 180 ? mixed : DataType::kFloat64;
    if (wanted != DataType::kFloat32 && (kind < 250 || reader.Bit())) type = wanted;
  }
}

// One number of a tensor, or from it on every few.
void SdpaCase::SetEdges(ByteReader& reader) {
  for (std::int64_t left = reader.InRange(0, 6); left > 0; --left) {
    const auto tensor = static_cast<std::size_t>(reader.InRange(0, static_cast<std::int64_t>(floats_.size()) - 1));
    const std::int64_t first = reader.InRange(0, float_counts_[tensor] - 1);
    const float value = kEdges[reader.InRange(0, std::size(kEdges) - 1)];
    const std::int64_t every = reader.Byte() % 8;
    for (std::int64_t i = first; i < float_counts_[tensor]; i += every) {
      // Values differ: a long sum of equal ones is rounded the same way each time, which the bound does not cover.
      const float share = tensor == 2 ? 1 - static_cast<float>(NextRandom() % 128) / 256 : 1;
      floats_[tensor][static_cast<std::size_t>(i)] = value * share;
      if (every == 0) break;
    }
  }
}

void SdpaCase::Retype() {
  wide_spec_ = spec_;
  TypedHeadsView* const tensors[] = {&spec_.query, &spec_.key, &spec_.value};
  for (std::size_t i = 0; i < 3; ++i) {
    if (types_[i] != DataType::kFloat32) *tensors[i] = Retyped(*tensors[i], types_[i]);
  }
}

}  // namespace attend::testing
