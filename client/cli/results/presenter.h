// Does with each answer what the user asked: writes files, prints, draws, compares.
#ifndef ATTEND_CLIENT_CLI_RESULTS_PRESENTER_H_
#define ATTEND_CLIENT_CLI_RESULTS_PRESENTER_H_

#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/comparison.h"
#include "client/cli/draw/terminal.h"
#include "client/cli/requests/computation.h"
#include "client/cli/results/result_flags.h"

namespace attend::client {

// What people read (heatmaps, timing, comparisons) goes to stdout when the answer there is a table, else to stderr, so
// that a pipe carries the answer alone. Thread-compatible.
class Presenter {
 public:
  // `returned` are the tensors to hand over, `inputs` the labels of all answers to come. Errors: INVALID_ARGUMENT for a
  // combination that cannot work, found before anything is computed.
  static absl::StatusOr<Presenter> Create(const ResultFlags& flags, const std::vector<v1::OutputKind>& returned,
                                          const std::vector<std::string>& inputs);

  // What to ask the server for: `returned`, and what drawing and comparing need besides.
  std::vector<v1::OutputKind> RequestedKinds() const;

  // Handles the answer to `request` for input number `index`. Errors: those of writing (UNKNOWN) and of reading
  // expected tensors; INTERNAL when the answer lacks a tensor that was asked for.
  absl::Status Present(std::size_t index, const ComputationRequest& request, const Outcome& outcome);

  // Whether a comparison so far found more than its bound.
  bool differs() const { return differs_; }

 private:
  enum class Form { kNone, kTable, kJson, kNpy };

  Presenter() = default;

  absl::Status ChooseForm(const ResultFlags& flags);
  absl::Status ChooseFiles(const ResultFlags& flags);
  absl::StatusOr<std::vector<Comparison>> CompareAll(const ComputationRequest& request, const Outcome& outcome) const;
  absl::Status Print(const std::string& input, const std::vector<NamedTensor>& tensors, const Outcome& outcome,
                     const std::vector<Comparison>& comparisons) const;
  absl::Status Draw(const Tensor& weights) const;
  void NoteWidened(const std::string& path, const std::vector<NamedTensor>& tensors);
  // Warns on stderr; a result with NaN is a result, and the exit code stays.
  void WarnOfNan(const std::string& input, const std::vector<NamedTensor>& tensors) const;
  std::ostream& ForPeople() const;

  std::vector<v1::OutputKind> returned_;
  std::vector<std::string> names_;  // Of the tensors that these are.
  std::vector<std::string> inputs_;
  std::vector<std::string> files_;  // Per input; empty when nothing is stored.
  std::vector<Expectation> expectations_;
  Form form_ = Form::kNone;
  Terminal terminal_;  // Where text for people goes.
  bool show_ = false;
  std::string plot_;
  bool verify_ = false;
  bool timing_ = false;
  bool differs_ = false;
  bool noted_widened_ = false;
};

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_RESULTS_PRESENTER_H_
