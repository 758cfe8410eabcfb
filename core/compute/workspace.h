// The memory of computing one group of row panels, reused from group to group.
#ifndef ATTEND_CORE_COMPUTE_WORKSPACE_H_
#define ATTEND_CORE_COMPUTE_WORKSPACE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/base/mutex.h"
#include "core/base/round.h"
#include "core/compute/row_panels.h"
#include "core/kernels/kernel_table.h"
#include "core/tensor/aligned_buffer.h"

namespace attend {

// A panel of a row group, the keys that its rows may see, and where its memory is.
struct GroupPanel : Panel {
  std::int64_t key_begin = 0;  // A multiple of kKeyBlock.
  std::int64_t key_end = 0;
  std::int64_t packed_offset = 0;
  std::int64_t state_offset = 0;
  DoubtfulRows doubtful;
  PackedQueries queries;
  // Rows that float32 may lose without a trace, row r by bit r: see LeavesFloatRange and ScalesBelowFloatRange.
  std::uint64_t leaves_range = 0;
  std::uint64_t below_range = 0;
};

// The largest magnitude in some keys of a head.
struct KeyBound {
  KvHead kv;
  KeyRange keys;
  float largest = 0;
};

// The floats of as many cache lines as `size` floats need, so that what follows them starts on a cache line.
constexpr std::int64_t PadToCacheLine(std::int64_t size) {
  return RoundUp(size, kCacheLine / static_cast<std::int64_t>(sizeof(float)));
}

// Thread-compatible: one thread at a time.
class Workspace {
 public:
  // At least `size` floats, uninitialised, aligned to 64 bytes. Ends the validity of what the last call returned.
  float* Floats(std::int64_t size) {
    if (floats_.size() < size) {
      floats_ = AlignedBuffer<float>();  // First, so that there are never both.
      floats_ = AlignedBuffer<float>(size);
    }
    return floats_.data();
  }

  std::vector<QueryRow> rows;
  std::vector<GroupPanel> panels;
  std::vector<KeyBound> key_bounds;  // Of each tile of keys, kept for the next group of the same head; or none yet.

  // What all of it takes.
  std::size_t num_bytes() const {
    return static_cast<std::size_t>(floats_.size()) * sizeof(float) + rows.capacity() * sizeof(QueryRow) +
           panels.capacity() * sizeof(GroupPanel) + key_bounds.capacity() * sizeof(KeyBound);
  }

 private:
  AlignedBuffer<float> floats_;
};

// Workspaces of one computation: as many as threads work on it at a time. Thread-safe.
class WorkspacePool {
 public:
  // A workspace on loan from the pool; given back at the end of its scope. REQUIRES: the pool outlives it.
  class Loan {
   public:
    explicit Loan(WorkspacePool& pool) : pool_(pool), workspace_(pool.Take()) {}
    ~Loan() { pool_.GiveBack(std::move(workspace_)); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    Workspace& operator*() const { return *workspace_; }

   private:
    WorkspacePool& pool_;
    std::unique_ptr<Workspace> workspace_;
  };

 private:
  std::unique_ptr<Workspace> Take() {
    MutexLock lock(mu_);
    if (free_.empty()) return std::make_unique<Workspace>();
    std::unique_ptr<Workspace> workspace = std::move(free_.back());
    free_.pop_back();
    return workspace;
  }
  void GiveBack(std::unique_ptr<Workspace> workspace) {
    MutexLock lock(mu_);
    free_.push_back(std::move(workspace));
  }

  Mutex mu_;
  std::vector<std::unique_ptr<Workspace>> free_ ABSL_GUARDED_BY(mu_);
};

}  // namespace attend

#endif  // ATTEND_CORE_COMPUTE_WORKSPACE_H_
