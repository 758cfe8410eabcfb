// The largest attention weights of a row.
#ifndef ATTEND_CORE_COMPUTE_TOP_WEIGHTS_H_
#define ATTEND_CORE_COMPUTE_TOP_WEIGHTS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace attend {

// Finds the largest of `weights` [length]: to top [k] and indices [k], the largest first, equal ones in ascending order
// of index. Weights of 0, masked keys among them, are not listed: where fewer than k are left, the rest is weight 0
// with index -1. NaN counts as larger than any number. `heap` is working memory.
//
// One pass with a heap of the best so far: for k much smaller than length, nearly all it does is compare each weight
// with the smallest of those.
template <typename T>
void SelectTopWeights(const T* weights, std::int64_t length, std::int64_t k, T* top, std::int32_t* indices,
                      std::vector<std::pair<T, std::int32_t>>& heap) {
  using Entry = std::pair<T, std::int32_t>;
  const auto larger = [](const Entry& a, const Entry& b) {
    if (std::isnan(a.first) || std::isnan(b.first)) {
      return std::isnan(a.first) == std::isnan(b.first) ? a.second < b.second : std::isnan(a.first);
    }
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  heap.clear();
  heap.reserve(static_cast<std::size_t>(std::min(k, length)));  // And no more: its size is counted before.
  T smallest = 0;                                               // Of the best so far: the next must exceed it.
  for (std::int64_t j = 0; j < length; ++j) {
    if (weights[j] <= smallest) continue;
    if (static_cast<std::int64_t>(heap.size()) == k) {
      if (std::isnan(smallest)) break;
      std::pop_heap(heap.begin(), heap.end(), larger);
      heap.pop_back();
    }
    heap.emplace_back(weights[j], static_cast<std::int32_t>(j));
    std::push_heap(heap.begin(), heap.end(), larger);
    if (static_cast<std::int64_t>(heap.size()) == k) smallest = heap.front().first;
  }
  std::sort_heap(heap.begin(), heap.end(), larger);
  for (std::int64_t i = 0; i < k; ++i) {
    const bool listed = i < static_cast<std::int64_t>(heap.size());
    top[i] = listed ? heap[static_cast<std::size_t>(i)].first : T{0};
    indices[i] = listed ? heap[static_cast<std::size_t>(i)].second : -1;
  }
}

}  // namespace attend

#endif  // ATTEND_CORE_COMPUTE_TOP_WEIGHTS_H_
