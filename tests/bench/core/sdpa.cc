#include "tests/bench/core/sdpa.h"

#include <algorithm>
#include <cstdlib>

#include "core/kernels/kernel_table.h"
#include "tests/bench/core/harness.h"

namespace attend::bench {
namespace {

// Written once, so that the system has given its pages.
AlignedBuffer<std::byte> Zeros(std::int64_t size) {
  AlignedBuffer<std::byte> zeros(size);
  std::fill_n(zeros.data(), size, std::byte{0});
  return zeros;
}

// Of query and output, where keys and values are of `type`.
DataType WideType(DataType type) { return type == DataType::kInt8 ? DataType::kFloat32 : type; }

// Of attention weights.
DataType ArithmeticType(DataType type) { return type == DataType::kFloat64 ? type : DataType::kFloat32; }

// Numbers of a type, as bytes.
AlignedBuffer<std::byte> TypedNumbers(DataType type, std::int64_t size) {
  const AlignedBuffer<float> numbers = Numbers(size);
  AlignedBuffer<std::byte> bytes(size * ElementSize(type));
  if (type == DataType::kFloat64) {
    std::copy_n(numbers.data(), size, reinterpret_cast<double*>(bytes.data()));
    return bytes;
  }
  if (type == DataType::kInt8) {
    std::transform(numbers.data(), numbers.data() + size, reinterpret_cast<std::int8_t*>(bytes.data()),
                   [](float x) { return static_cast<std::int8_t>(x * 127); });
    return bytes;
  }
  ConvertKernelsFor(BestInstructionSet()).narrow(type, numbers.data(), size, bytes.data());
  return bytes;
}

// One for each row of INT8, which make its numbers those of the other types.
AlignedBuffer<float> Scales(const Shape& s) {
  AlignedBuffer<float> scales(s.type == DataType::kInt8 ? s.kv_heads * s.keys : 0);
  std::fill_n(scales.data(), scales.size(), 1.0f / 127);
  return scales;
}

// About one key in eight is masked.
AlignedBuffer<std::uint8_t> Mask(std::int64_t size) {
  AlignedBuffer<std::uint8_t> mask(size);
  for (std::int64_t i = 0; i < size; ++i) mask[i] = i * 2654435761u % 8 != 0;
  return mask;
}

}  // namespace

Sdpa::Sdpa(const Shape& s)
    : query_(TypedNumbers(WideType(s.type), s.heads * s.queries * s.dim)),
      key_(TypedNumbers(s.type, s.kv_heads * s.keys * s.dim)),
      value_(TypedNumbers(s.type, s.kv_heads * s.keys * s.dim)),
      output_(Zeros(s.heads * s.queries * s.dim * ElementSize(WideType(s.type)))),
      key_scales_(Scales(s)),
      value_scales_(Scales(s)),
      weights_(Zeros(s.weights ? s.heads * s.queries * s.keys * ElementSize(ArithmeticType(s.type)) : 0)),
      mask_(Mask(s.mask ? s.queries * s.keys : 0)) {
  SdpaProblem::Spec spec;
  const auto view = [&s](auto* data, DataType type, std::int64_t heads, std::int64_t length) {
    return s.merged ? MergedTypedHeads(data, type, 1, heads, length, s.dim)
                    : SplitTypedHeads(data, type, 1, heads, length, s.dim);
  };
  const auto input = [&](const AlignedBuffer<std::byte>& tensor, DataType type, std::int64_t heads,
                         std::int64_t length) {
    return view(static_cast<const void*>(tensor.data()), type, heads, length);
  };
  spec.query = input(query_, WideType(s.type), s.heads, s.queries);
  spec.key = input(key_, s.type, s.kv_heads, s.keys);
  spec.value = input(value_, s.type, s.kv_heads, s.keys);
  const auto scales = [&s](const float* data) {
    return s.merged ? MergedHeads(data, 1, s.kv_heads, s.keys, 1) : SplitHeads(data, 1, s.kv_heads, s.keys, 1);
  };
  spec.key_scales = scales(key_scales_.data());
  spec.value_scales = scales(value_scales_.data());
  if (s.fast) spec.options.precision = Precision::kFast;
  if (s.causal) spec.options.causal = CausalMode::kBottomRight;
  if (s.mask) spec.options.mask = SplitHeads<const std::uint8_t>(mask_.data(), 1, 1, s.queries, s.keys);
  problem_ = *SdpaProblem::Create(spec);
  outputs_.output = view(static_cast<void*>(output_.data()), WideType(s.type), s.heads, s.queries);
  if (s.weights) {
    outputs_.attention_weights =
        SplitTypedHeads(static_cast<void*>(weights_.data()), ArithmeticType(s.type), 1, s.heads, s.queries, s.keys);
  }
}

void Sdpa::Compute(Executor* executor) const {
  ComputeContext context;
  context.executor = executor;
  context.fast_kernels = ChooseFastKernels(FastKernelsMode::kOn, context.instruction_set);
  if (!ComputeSdpa(*problem_, outputs_, context).ok()) std::abort();
}

void Sdpa::ComputeUntil(const std::atomic<bool>* cancelled) const {
  ComputeSdpa(*problem_, outputs_, {.cancelled = cancelled}).IgnoreError();
}

double Int8OverFloat32(const Shape& shape) {
  Shape narrow = shape;
  narrow.type = DataType::kInt8;
  const Sdpa int8(narrow), float32(shape);
  return MedianQuotient(RateOf(
                            ThreadClock, [&] { int8.Compute(); }, 1),
                        RateOf(
                            ThreadClock, [&] { float32.Compute(); }, 1));
}

}  // namespace attend::bench
