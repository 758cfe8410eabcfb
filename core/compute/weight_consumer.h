// Reduces attention weights: to their mean over heads, and to the largest of each row.
//
// Both need whole rows of weights, but only those of one tile at a time, so no map of T x S is held.
#ifndef ATTEND_CORE_COMPUTE_WEIGHT_CONSUMER_H_
#define ATTEND_CORE_COMPUTE_WEIGHT_CONSUMER_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "core/compute/top_weights.h"
#include "core/problem/sdpa_problem.h"
#include "core/tensor/aligned_buffer.h"

namespace attend {

// Queries [first, end) of batch entry b.
struct QueryTile {
  std::int64_t b = 0;
  std::int64_t first = 0;
  std::int64_t end = 0;
};

// Takes the weights of a tile's rows, for each query the heads in ascending order. T is the type of the arithmetic.
// Thread-compatible.
template <typename T>
class WeightConsumer {
 public:
  // Whether `outputs` need one.
  static bool IsNeeded(const SdpaOutputs& outputs) { return outputs.averaged_weights || outputs.top_weights; }

  // Both outlive the object.
  WeightConsumer(const SdpaProblem& problem, const SdpaOutputs& outputs, const QueryTile& tile)
      : problem_(problem),
        outputs_(outputs),
        tile_(tile),
        top_of_heads_(outputs.top_weights && outputs.top_weights.weights.heads == problem.num_heads()),
        averages_(outputs.averaged_weights || (outputs.top_weights && !top_of_heads_)),
        memory_(averages_ && !outputs.averaged_weights ? (tile.end - tile.first) * problem.key_length() : 0) {}

  // Takes one row [key_length].
  void Add(std::int64_t h, std::int64_t t, const T* weights) {
    if (averages_) AddToAverage(h, weights, AverageRow(t));
    if (top_of_heads_) Select(h, t, weights);
    if (averages_ && !top_of_heads_ && outputs_.top_weights && h == problem_.num_heads() - 1) {
      Select(0, t, AverageRow(t));
    }
  }

 private:
  T* AverageRow(std::int64_t t) const {
    if (outputs_.averaged_weights) return outputs_.averaged_weights.As<T>().Row(tile_.b, 0, t);
    return memory_.data() + (t - tile_.first) * problem_.key_length();
  }

  // One order of addition, whatever computes the heads. The first overwrites what is there, the last divides.
  void AddToAverage(std::int64_t h, const T* weights, T* average) const {
    const std::int64_t heads = problem_.num_heads();
    const T factor = h == heads - 1 ? T{1} / static_cast<T>(heads) : T{1};
    for (std::int64_t j = 0; j < problem_.key_length(); ++j) {
      average[j] = ((h == 0 ? T{0} : average[j]) + weights[j]) * factor;
    }
  }

  void Select(std::int64_t h, std::int64_t t, const T* weights) {
    const TopWeights& top = outputs_.top_weights;
    SelectTopWeights(weights, problem_.key_length(), top.weights.dim, top.weights.As<T>().Row(tile_.b, h, t),
                     top.indices.Row(tile_.b, h, t), heap_);
  }

  const SdpaProblem& problem_;
  const SdpaOutputs& outputs_;
  const QueryTile tile_;
  const bool top_of_heads_;
  const bool averages_;
  AlignedBuffer<T> memory_;
  std::vector<std::pair<T, std::int32_t>> heap_;
};

}  // namespace attend

#endif  // ATTEND_CORE_COMPUTE_WEIGHT_CONSUMER_H_
