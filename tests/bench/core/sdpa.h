// An attention problem with its tensors, for the cases to compute.
#ifndef ATTEND_TESTS_BENCH_CORE_SDPA_H_
#define ATTEND_TESTS_BENCH_CORE_SDPA_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "core/compute/compute_sdpa.h"
#include "core/tensor/aligned_buffer.h"

namespace attend::bench {

struct Shape {
  std::int64_t heads = 1, kv_heads = 1, queries = 0, keys = 0, dim = 0;
  bool causal = false, mask = false, weights = false;
  DataType type = DataType::kFloat32;  // Of query, key, value and output, any but BOOL; INT8 of keys and values.
  bool merged = false;                 // [B, T, H, E], otherwise [B, H, T, E].
  bool fast = false;                   // PRECISION_FAST, with what kernels this processor has for it.
};

// Owns a problem's tensors and results.
class Sdpa {
 public:
  explicit Sdpa(const Shape& shape);
  Sdpa(const Sdpa&) = delete;
  Sdpa& operator=(const Sdpa&) = delete;

  // On this thread alone, or with the executor's help.
  void Compute(Executor* executor = nullptr) const;

  // On this thread, until the flag is raised or all is done.
  void ComputeUntil(const std::atomic<bool>* cancelled) const;

  double Flops() const { return problem_->Flops(); }  // Of live keys alone.
  std::int64_t KeyValueBytes() const {
    return key_.size() + value_.size() + 4 * (key_scales_.size() + value_scales_.size());
  }
  std::int64_t IoBytes() const { return KeyValueBytes() + query_.size() + output_.size(); }

 private:
  AlignedBuffer<std::byte> query_, key_, value_, output_;
  AlignedBuffer<float> key_scales_, value_scales_;
  AlignedBuffer<std::byte> weights_;
  AlignedBuffer<std::uint8_t> mask_;
  std::optional<SdpaProblem> problem_;
  SdpaOutputs outputs_;
};

// How many times as fast one thread is with INT8 keys and values as with the same shape in FLOAT32.
double Int8OverFloat32(const Shape& shape);

}  // namespace attend::bench

#endif  // ATTEND_TESTS_BENCH_CORE_SDPA_H_
