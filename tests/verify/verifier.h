// What attend-verify does with results: compares them.
#ifndef ATTEND_TESTS_VERIFY_VERIFIER_H_
#define ATTEND_TESTS_VERIFY_VERIFIER_H_

#include <string>
#include <vector>

#include "client/cli/results/result_sink.h"
#include "tests/verify/comparison.h"
#include "tests/verify/error_scale.h"

namespace attend::client {

// An expected tensor, as in `--expect file.safetensors:output_f64` or `--expect attention_weights=weights.npy`.
struct Expectation {
  std::string name;    // Of the returned tensor; `output` unless given.
  std::string source;  // As TensorSource.
};

// Compares each result with the files of --expect, or, without any, every returned tensor with the float64 reference.
// Prints a line, or a JSON object, per comparison.
class Verifier final : public ResultSink {
 public:
  void AddFlags(CLI::App* command) override;
  absl::StatusOr<std::vector<v1::OutputKind>> Begin(const std::vector<v1::OutputKind>& returned,
                                                    const std::vector<std::string>& inputs) override;
  absl::Status Take(std::size_t index, const ComputationRequest& request, const Outcome& outcome) override;
  bool differs() const override { return differs_; }

 private:
  absl::StatusOr<std::vector<Comparison>> CompareAll(const ComputationRequest& request, const Outcome& outcome) const;

  std::vector<std::string> expect_;
  std::string format_;
  std::vector<Expectation> expectations_;
  std::vector<std::string> inputs_;
  bool differs_ = false;
};

}  // namespace attend::client

#endif  // ATTEND_TESTS_VERIFY_VERIFIER_H_
