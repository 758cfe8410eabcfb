// Non-owning views of the four-axis float tensors that attention works on.
//
// Every such tensor is [batch, heads, length, dim] with arbitrary strides on the first three axes and dense rows, so
// that the two layouts in use are both views: split heads [B, H, T, E] as given to scaled dot-product attention, and
// merged heads [B, T, H * E] as a projection writes them. A stride of 0 repeats an axis (broadcast).
//
// Views are values; they own nothing and are valid while the memory they point to is. Thread-compatible.
#ifndef ATTEND_CORE_TENSOR_HEADS_VIEW_H_
#define ATTEND_CORE_TENSOR_HEADS_VIEW_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/tensor/data_type.h"

namespace attend {

// T is a number, const or not, or `const std::uint8_t` for boolean masks.
template <typename T>
struct BasicHeadsView {
  T* data = nullptr;  // Null means "absent".
  std::int64_t batch = 0;
  std::int64_t heads = 0;
  std::int64_t length = 0;
  std::int64_t dim = 0;
  // In elements. Rows are dense: the stride of the last axis is 1 (0 for a broadcast mask or bias, see dim_stride).
  std::int64_t batch_stride = 0;
  std::int64_t head_stride = 0;
  std::int64_t row_stride = 0;
  std::int64_t dim_stride = 1;  // 1, or 0 where the last axis of a mask or bias is broadcast.

  explicit operator bool() const { return data != nullptr; }

  // The row [dim] of one batch entry, head and position. REQUIRES: each index is within its axis.
  T* Row(std::int64_t b, std::int64_t h, std::int64_t t) const {
    return data + b * batch_stride + h * head_stride + t * row_stride;
  }
};

using HeadsView = BasicHeadsView<const float>;
using MutableHeadsView = BasicHeadsView<float>;
using MaskView = BasicHeadsView<const std::uint8_t>;

// The same for an element type that is known only at run time.
template <typename Byte>
struct BasicTypedHeadsView {
  Byte* data = nullptr;  // Null means "absent". Aligned as its numbers need.
  DataType type = DataType::kFloat32;
  std::int64_t batch = 0;
  std::int64_t heads = 0;
  std::int64_t length = 0;
  std::int64_t dim = 0;
  std::int64_t batch_stride = 0;  // In elements, as above.
  std::int64_t head_stride = 0;
  std::int64_t row_stride = 0;
  std::int64_t dim_stride = 1;

  BasicTypedHeadsView() = default;
  // Every view of numbers is one of these.
  template <typename T>
  BasicTypedHeadsView(const BasicHeadsView<T>& view)  // NOLINT(google-explicit-constructor)
      : data(reinterpret_cast<Byte*>(view.data)),
        type(kDataTypeOf<std::remove_const_t<T>>),
        batch(view.batch),
        heads(view.heads),
        length(view.length),
        dim(view.dim),
        batch_stride(view.batch_stride),
        head_stride(view.head_stride),
        row_stride(view.row_stride),
        dim_stride(view.dim_stride) {}

  explicit operator bool() const { return data != nullptr; }

  // As above.
  Byte* Row(std::int64_t b, std::int64_t h, std::int64_t t) const {
    return data + (b * batch_stride + h * head_stride + t * row_stride) * ElementSize(type);
  }

  // The view with its type. T is const where Byte is. REQUIRES: T is that type, or the view is absent.
  template <typename T>
  BasicHeadsView<T> As() const {
    return {reinterpret_cast<T*>(data), batch, heads, length, dim, batch_stride, head_stride, row_stride, dim_stride};
  }
};

using TypedHeadsView = BasicTypedHeadsView<const std::byte>;
using MutableTypedHeadsView = BasicTypedHeadsView<std::byte>;

// A dense [batch, heads, length, dim] view.
template <typename T>
BasicHeadsView<T> SplitHeads(T* data, std::int64_t batch, std::int64_t heads, std::int64_t length, std::int64_t dim) {
  return {data, batch, heads, length, dim, heads * length * dim, length * dim, dim, 1};
}

// A view of [batch, length, heads * dim] as [batch, heads, length, dim].
template <typename T>
BasicHeadsView<T> MergedHeads(T* data, std::int64_t batch, std::int64_t heads, std::int64_t length, std::int64_t dim) {
  return {data, batch, heads, length, dim, length * heads * dim, dim, heads * dim, 1};
}

// The same of any type: SplitTypedHeads as SplitHeads, MergedTypedHeads as MergedHeads.
inline TypedHeadsView SplitTypedHeads(const void* data, DataType type, std::int64_t batch, std::int64_t heads,
                                      std::int64_t length, std::int64_t dim) {
  TypedHeadsView view = SplitHeads(static_cast<const float*>(data), batch, heads, length, dim);
  view.type = type;
  return view;
}
inline MutableTypedHeadsView SplitTypedHeads(void* data, DataType type, std::int64_t batch, std::int64_t heads,
                                             std::int64_t length, std::int64_t dim) {
  MutableTypedHeadsView view = SplitHeads(static_cast<float*>(data), batch, heads, length, dim);
  view.type = type;
  return view;
}
inline TypedHeadsView MergedTypedHeads(const void* data, DataType type, std::int64_t batch, std::int64_t heads,
                                       std::int64_t length, std::int64_t dim) {
  TypedHeadsView view = MergedHeads(static_cast<const float*>(data), batch, heads, length, dim);
  view.type = type;
  return view;
}
inline MutableTypedHeadsView MergedTypedHeads(void* data, DataType type, std::int64_t batch, std::int64_t heads,
                                              std::int64_t length, std::int64_t dim) {
  MutableTypedHeadsView view = MergedHeads(static_cast<float*>(data), batch, heads, length, dim);
  view.type = type;
  return view;
}

}  // namespace attend

#endif  // ATTEND_CORE_TENSOR_HEADS_VIEW_H_
