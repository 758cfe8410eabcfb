#include "client/cli/results/presenter.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cli/draw/heatmap.h"
#include "client/cli/draw/png_plot.h"
#include "client/cli/draw/weight_map.h"
#include "client/cli/requests/attention_flags.h"
#include "client/cli/requests/tensor_source.h"
#include "client/cli/results/nan_warning.h"
#include "client/cli/results/output_format.h"
#include "client/cli/verify.h"
#include "formats/files/file_writer.h"

namespace attend::client {
namespace {

constexpr std::int64_t kMaxShownMaps = 8;

// The file name of an input's results: `x` for x.npy, `weights.query` for weights.safetensors:query.
std::string Stem(const std::string& input) {
  const TensorSource source = TensorSource::Parse(input);
  std::string stem = source.path == "-" ? "stdin" : std::filesystem::path(source.path).stem().string();
  if (source.name.empty()) return stem;
  std::string name = source.name;
  std::replace(name.begin(), name.end(), '/', '_');
  return absl::StrCat(stem, ".", name);
}

}  // namespace

absl::StatusOr<Presenter> Presenter::Create(const ResultFlags& flags, const std::vector<v1::OutputKind>& returned,
                                            const std::vector<std::string>& inputs) {
  Presenter presenter;
  presenter.returned_ = returned;
  for (const v1::OutputKind kind : returned) {
    for (std::string& name : OutputNames(kind)) presenter.names_.push_back(std::move(name));
  }
  presenter.inputs_ = inputs;
  presenter.show_ = flags.show;
  presenter.plot_ = flags.plot;
  presenter.verify_ = flags.verify;
  presenter.timing_ = flags.timing;
  absl::Status status = presenter.ChooseForm(flags);
  status.Update(presenter.ChooseFiles(flags));
  if (!status.ok()) return status;
  for (const std::string& text : flags.expect) {
    absl::StatusOr<Expectation> expectation = Expectation::Parse(text);
    if (!expectation.ok()) return expectation.status();
    presenter.expectations_.push_back(*std::move(expectation));
  }
  presenter.terminal_ = DetectTerminal(presenter.form_ == Form::kTable ? STDOUT_FILENO : STDERR_FILENO);
  return presenter;
}

absl::Status Presenter::ChooseForm(const ResultFlags& flags) {
  const bool is_terminal = isatty(STDOUT_FILENO) == 1;
  const bool stored = !flags.output.empty() || !flags.output_dir.empty();
  if (flags.format == "json") {
    form_ = Form::kJson;
  } else if (flags.format == "table" || (flags.format.empty() && is_terminal)) {
    form_ = Form::kTable;
  } else if (flags.format == "npy" || !stored) {
    form_ = Form::kNpy;
  }
  if (form_ == Form::kNpy && is_terminal) {
    return absl::InvalidArgumentError("-o npy would write bytes to the terminal; pipe it or use --output FILE.npy");
  }
  return absl::OkStatus();
}

absl::Status Presenter::ChooseFiles(const ResultFlags& flags) {
  if (inputs_.size() > 1 && (!flags.output.empty() || !flags.plot.empty())) {
    return absl::InvalidArgumentError("--output and --plot take one --input; use --output-dir for a batch");
  }
  if (!flags.plot.empty() && !absl::EndsWith(flags.plot, ".png")) {
    return absl::InvalidArgumentError(absl::StrCat("--plot ", flags.plot, ": expected a .png file"));
  }
  if (absl::Status status = CheckNoFolder("--plot", flags.plot); !status.ok()) return status;
  if (!flags.output.empty()) {
    files_.push_back(flags.output);
    return CheckOutputPath(flags.output, names_.size());
  }
  if (flags.output_dir.empty()) return absl::OkStatus();
  std::error_code error;
  if (!std::filesystem::is_directory(flags.output_dir, error)) {
    return absl::InvalidArgumentError(absl::StrCat("--output-dir ", flags.output_dir, " is not a directory"));
  }
  std::set<std::string> seen;
  for (const std::string& input : inputs_) {
    const std::string name = absl::StrCat(Stem(input), names_.size() == 1 ? ".npy" : ".safetensors");
    files_.push_back((std::filesystem::path(flags.output_dir) / name).string());
    if (!seen.insert(files_.back()).second) {
      return absl::InvalidArgumentError(absl::StrCat("two inputs would both be written to ", files_.back()));
    }
    if (std::filesystem::equivalent(files_.back(), input, error)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the result of ", input, " would replace it; choose another directory"));
    }
  }
  return absl::OkStatus();
}

std::vector<v1::OutputKind> Presenter::RequestedKinds() const {
  std::vector<v1::OutputKind> kinds = returned_;
  const auto add = [&kinds](v1::OutputKind kind) {
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) kinds.push_back(kind);
  };
  if (show_ || !plot_.empty()) add(v1::OUTPUT_KIND_ATTENTION_WEIGHTS);
  for (const Expectation& expectation : expectations_) add(OutputKindOf(expectation.name));
  return kinds;
}

std::ostream& Presenter::ForPeople() const { return form_ == Form::kTable ? std::cout : std::cerr; }

absl::StatusOr<std::vector<Comparison>> Presenter::CompareAll(const ComputationRequest& request,
                                                              const Outcome& outcome) const {
  std::vector<Comparison> comparisons;
  if (verify_) {
    absl::StatusOr<std::vector<Comparison>> verified = VerifyAgainstReference(request, outcome);
    if (!verified.ok()) return verified.status();
    comparisons = *std::move(verified);
  }
  if (expectations_.empty()) return comparisons;
  const ErrorScale scale = ComputeErrorScale(request);
  for (const Expectation& expectation : expectations_) {
    absl::StatusOr<Comparison> comparison = CompareExpected(expectation, outcome, scale);
    if (!comparison.ok()) return comparison.status();
    comparisons.push_back(*std::move(comparison));
  }
  return comparisons;
}

absl::Status Presenter::Print(const std::string& input, const std::vector<NamedTensor>& tensors, const Outcome& outcome,
                              const std::vector<Comparison>& comparisons) const {
  if (form_ == Form::kTable) {
    if (inputs_.size() > 1) std::cout << input << "\n";
    std::cout << FormatTable(tensors);
  } else if (form_ == Form::kJson) {
    std::cout << FormatJson(input, tensors, outcome, comparisons);
  } else if (form_ == Form::kNpy) {
    const absl::StatusOr<std::string> stream = FormatNpyStream(tensors);
    if (!stream.ok()) return stream.status();
    std::cout.write(stream->data(), static_cast<std::streamsize>(stream->size()));
  }
  std::cout.flush();
  return std::cout.good() ? absl::OkStatus() : absl::UnknownError("cannot write to standard output");
}

absl::Status Presenter::Draw(const Tensor& weights) const {
  if (show_) {
    for (const WeightMap& map : SplitMaps(weights, kMaxShownMaps)) ForPeople() << DrawHeatmap(map, terminal_);
    const std::int64_t more = CountMaps(weights) - kMaxShownMaps;
    if (more > 0) ForPeople() << "(and " << more << " more maps)\n";
  }
  if (plot_.empty()) return absl::OkStatus();
  const std::int64_t more = CountMaps(weights) - kMaxPanels;
  if (more > 0) std::cerr << "attend: note: " << plot_ << " leaves out " << more << " further maps\n";
  const absl::StatusOr<std::string> png = PlotWeights(SplitMaps(weights, kMaxPanels)).Png();
  return png.ok() ? WriteFile(plot_, *png) : png.status();
}

void Presenter::NoteWidened(const std::string& path, const std::vector<NamedTensor>& tensors) {
  if (noted_widened_ || (form_ != Form::kNpy && (path.empty() || !HoldsNpy(path)))) return;
  noted_widened_ = std::any_of(tensors.begin(), tensors.end(),
                               [](const NamedTensor& entry) { return entry.tensor.type() == ElementType::kBFloat16; });
  if (!noted_widened_) return;
  std::cerr << "attend: note: NumPy has no bfloat16; the .npy file holds the same numbers as float32 "
               "(--output FILE.safetensors keeps the type)\n";
}

void Presenter::WarnOfNan(const std::string& input, const std::vector<NamedTensor>& tensors) const {
  for (const NamedTensor& entry : tensors) {
    const std::string warning = NanWarning(entry);
    if (warning.empty()) continue;
    std::cerr << "attend: warning: " << (inputs_.size() > 1 ? input + ": " : "") << warning << "\n";
  }
}

absl::Status Presenter::Present(std::size_t index, const ComputationRequest& request, const Outcome& outcome) {
  const absl::StatusOr<std::vector<Comparison>> comparisons = CompareAll(request, outcome);
  if (!comparisons.ok()) return comparisons.status();
  std::vector<NamedTensor> tensors;
  for (const std::string& name : names_) {
    const Tensor* tensor = Find(outcome.tensors, name);
    if (tensor == nullptr) return absl::InternalError(absl::StrCat("the server returned no ", name));
    tensors.push_back({name, *tensor});
  }
  NoteWidened(files_.empty() ? "" : files_[index], tensors);
  WarnOfNan(inputs_[index], tensors);
  absl::Status status = files_.empty() ? absl::OkStatus() : WriteTensors(files_[index], tensors);
  status.Update(Print(inputs_[index], tensors, outcome, *comparisons));
  const Tensor* weights = Find(outcome.tensors, "attention_weights");
  if (weights != nullptr) status.Update(Draw(*weights));
  if (timing_ && form_ != Form::kJson) ForPeople() << FormatTiming(outcome);
  for (const Comparison& comparison : *comparisons) {
    if (form_ != Form::kJson) ForPeople() << Describe(comparison) << "\n";
    differs_ = differs_ || !comparison.ok();
  }
  return status;
}

}  // namespace attend::client
