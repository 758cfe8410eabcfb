// Does with each result what the user asked: writes files, prints, draws.
#ifndef ATTEND_CLIENT_CLI_RESULTS_PRESENTER_H_
#define ATTEND_CLIENT_CLI_RESULTS_PRESENTER_H_

#include <ostream>
#include <string>
#include <vector>

#include "client/cli/results/result_sink.h"
#include "client/draw/heatmap.h"
#include "client/draw/weight_map.h"

namespace attend::client {

// What people read (heatmaps, timing) goes to stdout when the result there is a table, else to stderr, so that a pipe
// carries the result alone.
class Presenter final : public ResultSink {
 public:
  void AddFlags(CLI::App* command) override;
  absl::StatusOr<std::vector<v1::OutputKind>> Begin(const std::vector<v1::OutputKind>& returned,
                                                    const std::vector<std::string>& inputs) override;
  absl::Status Take(std::size_t index, const ComputationRequest& request, const Outcome& outcome) override;
  bool measures_time() const override { return timing_; }
  bool estimates() const override { return estimate_; }
  void TakeEstimate(std::size_t index, const v1::EstimateCostResponse& cost) override;

 private:
  enum class Form { kNone, kTable, kJson, kNpy };

  absl::Status ChooseForm();
  absl::Status ChooseFiles();
  absl::Status ChooseStyle();
  absl::Status Print(const std::string& input, const std::vector<NamedTensor>& tensors, const Outcome& outcome) const;
  absl::Status Draw(const Tensor& weights, const DrawStyle& style) const;
  void NoteWidened(const std::string& path, const std::vector<NamedTensor>& tensors);
  // Warns on stderr; a result with NaN is a result, and the exit code stays.
  void WarnOfNan(const std::string& input, const std::vector<NamedTensor>& tensors) const;
  bool draws() const { return show_ || !plot_.empty(); }
  std::ostream& ForPeople() const;

  // Flags.
  std::string format_;  // `json`, `table`, `npy`, or empty for what suits stdout.
  std::string output_;
  std::string output_dir_;
  bool show_ = false;
  std::string plot_;
  std::string labels_;
  std::string key_labels_;
  std::string color_scale_ = "linear";
  std::string plot_font_ = DrawStyle().font;
  bool timing_ = false;
  bool estimate_ = false;

  std::vector<std::string> names_;  // Of the tensors to hand over.
  std::vector<std::string> inputs_;
  std::vector<std::string> files_;  // Per input; empty when nothing is stored.
  Form form_ = Form::kNone;
  Terminal terminal_;  // Where text for people goes.
  DrawStyle style_;
  bool noted_widened_ = false;
};

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_RESULTS_PRESENTER_H_
