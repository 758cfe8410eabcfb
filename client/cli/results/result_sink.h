// Where the results of `compute` and `sdpa` go.
#ifndef ATTEND_CLIENT_CLI_RESULTS_RESULT_SINK_H_
#define ATTEND_CLIENT_CLI_RESULTS_RESULT_SINK_H_

#include <CLI/App.hpp>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/requests/computation.h"

namespace attend::client {

// Thread-compatible.
class ResultSink {
 public:
  virtual ~ResultSink() = default;

  // Declares this sink's own flags on `command`; the sink must outlive parsing.
  virtual void AddFlags(CLI::App* command) = 0;

  // Called once, before anything is computed: `returned` is what the user asks for, `inputs` the labels of all results
  // to come. Returns what to ask the server for. Errors: INVALID_ARGUMENT for flags that cannot work.
  virtual absl::StatusOr<std::vector<v1::OutputKind>> Begin(const std::vector<v1::OutputKind>& returned,
                                                            const std::vector<std::string>& inputs) = 0;

  // Takes the result for input number `index`. Errors: INVALID_ARGUMENT for what the user gave, INTERNAL when a tensor
  // is missing or has other axes than it should, UNKNOWN when something cannot be written.
  virtual absl::Status Take(std::size_t index, const ComputationRequest& request, const Outcome& outcome) = 0;

  // Whether to ask what the calls would cost instead of making them, and takes the answer for input number `index`.
  virtual bool estimates() const { return false; }
  virtual void TakeEstimate(std::size_t /*index*/, const v1::EstimateCostResponse& /*cost*/) {}

  // Whether the round trip is of interest, so that the connection should be made before the first call.
  virtual bool measures_time() const { return false; }

  // Whether a result was further from what it should be than its bound.
  virtual bool differs() const { return false; }
};

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_RESULTS_RESULT_SINK_H_
