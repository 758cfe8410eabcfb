// How long a piece of work will take: from its arithmetic and its bytes, and from how long the work before it took.
//
// Two rates are measured when the server starts, on the real kernels (MeasureRates). They are right for the shapes they
// were measured on; small heads, softmax-bound or FLOAT64 problems take longer per operation, and so does every problem
// on a machine that others use too. So a factor, observed over predicted time of the latest work, corrects both. It
// is the ratio of two sums that fade with the time observed: a second of computing halves what was known before, tiny
// jobs hardly count, and no sample counts for more than its share.
//
//   CostModel model(MeasureRates(BestInstructionSet()));
//   double ms = model.Milliseconds({.flops = job.flops(), .bytes = job.memory_bytes()});
//   model.Observe({...}, took_ms);
//
// Thread-compatible.
#ifndef ATTEND_SERVER_RPC_COST_MODEL_H_
#define ATTEND_SERVER_RPC_COST_MODEL_H_

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "core/kernels/instruction_set.h"

namespace attend::server {

// What work consists of. Estimates, and from callers maybe wrong ones; nothing is allocated by them.
struct WorkCost {
  double flops = 0;  // Floating-point operations; at least 0.
  double bytes = 0;  // Of memory touched: request, scratch and response; at least 0.
};

// Of one compute thread.
struct ComputeRates {
  double flops_per_ms = 20e6;
  double bytes_per_ms = 2e6;
};

// Times a small problem and the first use of fresh memory; takes a few milliseconds. The best of several runs counts.
ComputeRates MeasureRates(InstructionSet instruction_set);

class CostModel {
 public:
  explicit CostModel(const ComputeRates& rates) : rates_(rates) {}

  // What one compute thread alone is expected to take.
  double Milliseconds(const WorkCost& cost) const { return Uncorrected(cost) * correction(); }

  // The least that one thread could take: as measured on the idle machine, or what was observed where that is less.
  double LeastMilliseconds(const WorkCost& cost) const;

  // `cost` took one thread `ms` milliseconds. REQUIRES: ms >= 0.
  void Observe(const WorkCost& cost, double ms);

  // Observed over predicted time; in [1/64, 64].
  double correction() const { return observed_ms_ / predicted_ms_; }

 private:
  double Uncorrected(const WorkCost& cost) const {
    return cost.flops / rates_.flops_per_ms + cost.bytes / rates_.bytes_per_ms;
  }

  ComputeRates rates_;
  // As if the measured rates had been confirmed by a tenth of a second of work.
  double observed_ms_ = 100;
  double predicted_ms_ = 100;
};

// A model for each tenant, corrected by that tenant's work alone: no tenant's problems change what is expected of
// another's. Thread-compatible.
class TenantCostModels {
 public:
  explicit TenantCostModels(const ComputeRates& rates) : uncorrected_(rates) {}

  // The rates as they were measured, for a tenant of which nothing was observed. Valid until the next Observe.
  const CostModel& Of(std::string_view tenant) const {
    const auto found = models_.find(tenant);
    return found == models_.end() ? uncorrected_ : found->second;
  }
  void Observe(std::string_view tenant, const WorkCost& cost, double ms) {
    auto found = models_.find(tenant);
    if (found == models_.end()) found = models_.emplace(std::string(tenant), uncorrected_).first;
    found->second.Observe(cost, ms);
  }

 private:
  const CostModel uncorrected_;
  std::map<std::string, CostModel, std::less<>> models_;
};

// What a caller says that its request costs, in the metadata kCostHintKey: a decimal number of floating-point
// operations such as `1.3e9`, 2 (E + V) for each pair of query and key and head, and 2 for each weight of a projection
// and token. Metadata arrives before the request, so a busy server can refuse from it alone. It is only a hint: what is
// computed, and every limit, goes by the decoded request. Nothing when `text` is not a finite number of at least 0.
std::optional<double> ParseCostHint(std::string_view text);

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_COST_MODEL_H_
