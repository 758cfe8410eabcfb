// Rotary position embedding (Su et al. 2021, arXiv:2104.09864): pairs of a query's or key's elements, rotated by angles
// that grow with its position.
//
// The same bits on every machine: sine and cosine are computed here, from integers and from operations that round the
// same everywhere, because those of the C library depend on its version and on the processor.
#ifndef ATTEND_CORE_LAYER_ROTARY_H_
#define ATTEND_CORE_LAYER_ROTARY_H_

#include <cstdint>
#include <vector>

#include "absl/numeric/int128.h"
#include "absl/types/span.h"
#include "core/layer/attend_problem.h"

namespace attend {

struct SineAndCosine {
  double sine = 0;
  double cosine = 1;
};

// The angles position * frequency, as fractions of a turn in integers: the product is exact, so that a position of 2^40
// is as accurate as one of 1. Immutable; may be shared between threads.
class RotaryAngles {
 public:
  // REQUIRES: finite frequencies, none above kMaxRotaryFrequency in magnitude.
  explicit RotaryAngles(absl::Span<const double> frequencies);

  std::int64_t size() const { return static_cast<std::int64_t>(turns_.size()); }
  // Of position * frequencies[i], each within 4e-16. REQUIRES: i in [0, size()).
  SineAndCosine At(std::int64_t position, std::int64_t i) const;

 private:
  std::vector<absl::uint128> turns_;  // Of one step of the position, in units of 2^-128 turns.
};

// Applies a rotary embedding to the tokens of one problem. T is the type of the arithmetic, to which sines and cosines
// times the factor are rounded. Thread-compatible.
template <typename T>
class RotaryApplier {
 public:
  // REQUIRES: `angles` outlives it.
  RotaryApplier(const RotaryAngles& angles, bool interleaved, double factor = 1);

  // Rotates the first 2 * angles.size() elements of each of `heads` rows [head_dim], one row after the other, by the
  // angles of `position`, and multiplies them by the factor, in place.
  void Apply(std::int64_t position, std::int64_t heads, std::int64_t head_dim, T* rows);

 private:
  const RotaryAngles& angles_;
  bool interleaved_;
  double factor_;
  // Sines and cosines are kept from row to row: a key often has the position of the query before it.
  bool has_position_ = false;  // Whether they are those of position_.
  std::int64_t position_ = 0;
  std::vector<T> sines_;
  std::vector<T> cosines_;
};

}  // namespace attend

#endif  // ATTEND_CORE_LAYER_ROTARY_H_
