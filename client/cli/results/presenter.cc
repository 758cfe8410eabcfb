#include "client/cli/results/presenter.h"

#include <unistd.h>

#include <CLI/Validators.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/requests/attention_flags.h"
#include "client/cli/requests/tensor_source.h"
#include "client/cli/results/output_format.h"
#include "client/draw/heatmap.h"
#include "client/draw/picture.h"
#include "client/draw/plot.h"
#include "client/draw/weight_map.h"
#include "client/text/message_json.h"
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

absl::Status Unexpected(const char* name, const Tensor& tensor, const char* expected) {
  return absl::InternalError(absl::StrCat("the server's ", name, ": ", tensor.Describe(), ", expected ", expected));
}

// Whether weights have the axes by which drawings find them. A server can answer anything.
absl::Status CheckDrawable(const Tensor* weights) {
  if (weights == nullptr) return absl::InternalError("the server returned no attention_weights");
  if (weights->shape().size() >= 2 && weights->num_elements() > 0) return absl::OkStatus();
  return Unexpected("attention_weights", *weights, "queries and keys as the last two axes, and none of 0");
}

// The same of the tensors that a table shows together.
absl::Status CheckTopWeights(const std::vector<NamedTensor>& tensors) {
  const Tensor* const weights = Find(tensors, "top_attention_weights");
  const Tensor* const indices = Find(tensors, "top_attention_indices");
  if (weights == nullptr || indices == nullptr) return absl::OkStatus();
  if (weights->shape().size() < 2) {
    return Unexpected("top_attention_weights", *weights, "queries and their top weights as the last two axes");
  }
  if (indices->shape() == weights->shape() && indices->type() == ElementType::kInt32) return absl::OkStatus();
  return Unexpected("top_attention_indices", *indices, "int32 in the shape of top_attention_weights");
}

}  // namespace

void Presenter::AddFlags(CLI::App* command) {
  AddFormatFlag(command, {"json", "table", "npy"}, &format_);
  const auto add = [command](const std::string& flag, std::string& text, const std::string& help) {
    return command->add_option(flag, text, help)->group("Results");
  };
  CLI::Option* output = add(
      "--output", output_,
      "Write the tensors to FILE.npy (one), FILE.npz or FILE.safetensors. A symbolic link and the file's mode stay; "
      "a device or pipe takes .npy");
  add("--output-dir", output_dir_, "Write one file per input into this directory")->excludes(output);
  command->add_flag("--show", show_, "Draw the attention weights in the terminal")->group("Results");
  add("--plot", plot_, "Draw the attention weights into FILE.png or FILE.svg");
  add("--labels", labels_, "For --show and --plot: a text file with a line per token, for queries and keys");
  add("--key-labels", key_labels_, "The same for the keys, where they are other tokens");
  add("--color-scale", color_scale_, "For --show and --plot: linear or log")
      ->check(CLI::IsMember({"linear", "log"}))
      ->capture_default_str();
  add("--plot-font", plot_font_, "A font family for --plot")->capture_default_str();
  command->add_flag("--timing", timing_, "Print where the time went and who computed")->group("Results");
  command
      ->add_flag("--estimate", estimate_,
                 "Print what the call would cost and whether the server would admit it (RPC EstimateCost), as table or "
                 "json; nothing is sent of the inputs but types and shapes, nothing computed or written")
      ->group("Results");
  for (const char* moved : {"--verify", "--expect"}) {  // Hidden: these flags were here once.
    const auto refuse = [moved] { throw CLI::ValidationError(moved, "use attend-verify, which takes the same flags"); };
    command->add_flag_callback(moved, refuse)->group("");
  }
}

absl::StatusOr<std::vector<v1::OutputKind>> Presenter::Begin(const std::vector<v1::OutputKind>& returned,
                                                             const std::vector<std::string>& inputs) {
  inputs_ = inputs;
  std::vector<v1::OutputKind> kinds = returned;
  for (const v1::OutputKind kind : returned) {
    for (std::string& name : OutputNames(kind)) names_.push_back(std::move(name));
  }
  absl::Status status = ChooseForm();
  status.Update(ChooseFiles());
  status.Update(ChooseStyle());
  if (!status.ok()) return status;
  terminal_ = DetectTerminal(form_ == Form::kTable ? STDOUT_FILENO : STDERR_FILENO);
  if (draws() && std::find(kinds.begin(), kinds.end(), v1::OUTPUT_KIND_ATTENTION_WEIGHTS) == kinds.end()) {
    kinds.push_back(v1::OUTPUT_KIND_ATTENTION_WEIGHTS);
  }
  return kinds;
}

absl::Status Presenter::ChooseForm() {
  const bool is_terminal = isatty(STDOUT_FILENO) == 1;
  const bool stored = !output_.empty() || !output_dir_.empty();
  if (format_ == "json") form_ = Form::kJson;
  if (format_ == "table" || (format_.empty() && (is_terminal || !stored))) form_ = Form::kTable;
  if (format_ != "npy") return absl::OkStatus();
  if (estimate_) return absl::InvalidArgumentError("-o npy writes an array, and --estimate has none; use -o json");
  form_ = Form::kNpy;
  if (is_terminal) {
    return absl::InvalidArgumentError("-o npy would write bytes to the terminal; pipe it or use --output FILE.npy");
  }
  if (names_.size() == 1 && inputs_.size() == 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("-o npy writes one array, but there are ", names_.size() * inputs_.size(),
                   inputs_.size() == 1 ? "; use --output FILE.npz" : "; use --output-dir DIR"));
}

absl::Status Presenter::ChooseFiles() {
  if (inputs_.size() > 1 && (!output_.empty() || !plot_.empty())) {
    return absl::InvalidArgumentError("--output and --plot take one --input; use --output-dir for a batch");
  }
  if (absl::Status status = CheckNoFolder("--plot", plot_); !status.ok()) return status;
  if (!output_.empty()) {
    files_.push_back(output_);
    return CheckOutputPath(output_, names_.size());
  }
  if (output_dir_.empty()) return absl::OkStatus();
  std::error_code error;
  if (!std::filesystem::is_directory(output_dir_, error)) {
    return absl::InvalidArgumentError(absl::StrCat("--output-dir ", output_dir_, " is not a directory; make it first"));
  }
  std::set<std::string> seen;
  for (const std::string& input : inputs_) {
    const std::string name = absl::StrCat(Stem(input), names_.size() == 1 ? ".npy" : ".safetensors");
    files_.push_back((std::filesystem::path(output_dir_) / name).string());
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

absl::Status Presenter::ChooseStyle() {
  if (!plot_.empty()) {
    if (absl::Status status = CheckPicturePath(plot_); !status.ok()) return status;
  }
  style_.log_scale = color_scale_ == "log";
  style_.font = plot_font_;
  if (!draws() && (!labels_.empty() || !key_labels_.empty() || style_.log_scale)) {
    return absl::InvalidArgumentError("--labels, --key-labels and --color-scale belong to --show or --plot");
  }
  for (const auto& [path, labels] : {std::pair{&labels_, &style_.query_labels}, {&key_labels_, &style_.key_labels}}) {
    if (path->empty()) continue;
    absl::StatusOr<std::vector<std::string>> lines = LoadLabels(*path);
    if (!lines.ok()) return lines.status();
    *labels = *std::move(lines);
  }
  return absl::OkStatus();
}

std::ostream& Presenter::ForPeople() const { return form_ == Form::kTable ? std::cout : std::cerr; }

absl::Status Presenter::Print(const std::string& input, const std::vector<NamedTensor>& tensors,
                              const Outcome& outcome) const {
  if (form_ == Form::kTable) {
    if (inputs_.size() > 1) std::cout << input << "\n";
    std::cout << FormatTable(tensors);
  } else if (form_ == Form::kJson) {
    std::cout << FormatJson(input, tensors, outcome);
  } else if (form_ == Form::kNpy) {
    const absl::StatusOr<std::string> stream = FormatFile(FileKind::kNpy, tensors);
    if (!stream.ok()) return stream.status();
    std::cout.write(stream->data(), static_cast<std::streamsize>(stream->size()));
  }
  std::cout.flush();
  return std::cout.good() ? absl::OkStatus() : absl::UnknownError("cannot write to standard output");
}

absl::Status Presenter::Draw(const Tensor& weights, const DrawStyle& style) const {
  if (show_) {
    for (const WeightMap& map : SplitMaps(weights, kMaxShownMaps)) ForPeople() << DrawHeatmap(map, style, terminal_);
    const std::int64_t more = CountMaps(weights) - kMaxShownMaps;
    if (more > 0) ForPeople() << "(and " << more << " more maps)\n";
  }
  if (plot_.empty()) return absl::OkStatus();
  const std::int64_t more = CountMaps(weights) - kMaxPanels;
  if (more > 0) std::cerr << "attend: note: " << plot_ << " leaves out " << more << " further maps\n";
  const absl::StatusOr<std::string> picture = PlotWeights(plot_, SplitMaps(weights, kMaxPanels), style);
  return picture.ok() ? WriteFile(plot_, *picture) : picture.status();
}

void Presenter::NoteWidened(const std::string& path, const std::vector<NamedTensor>& tensors) {
  if (noted_widened_ || (form_ != Form::kNpy && (path.empty() || KindOf(path) == FileKind::kSafetensors))) return;
  noted_widened_ = std::any_of(tensors.begin(), tensors.end(),
                               [](const NamedTensor& entry) { return entry.tensor.type() == ElementType::kBFloat16; });
  if (!noted_widened_) return;
  std::cerr << "attend: note: NumPy has no bfloat16; the file holds the same numbers as float32 "
               "(--output FILE.safetensors keeps the type)\n";
}

void Presenter::WarnOfNan(const std::string& input, const std::vector<NamedTensor>& tensors) const {
  for (const NamedTensor& entry : tensors) {
    const std::string warning = NanWarning(entry);
    if (warning.empty()) continue;
    std::cerr << "attend: warning: " << (inputs_.size() > 1 ? input + ": " : "") << warning << "\n";
  }
}

void Presenter::TakeEstimate(std::size_t index, const v1::EstimateCostResponse& cost) {
  Json json = {{"input", inputs_[index]}};
  json.update(ToJson(cost, 1));
  Json rows = json;
  if (cost.admissible()) rows.erase("limit"), rows.erase("description");
  std::cout << (format_ == "json" ? FormatLine(json) : FormatRows(ToRows(rows))) << std::flush;
}

absl::Status Presenter::Take(std::size_t index, const ComputationRequest& /*request*/, const Outcome& outcome) {
  std::vector<NamedTensor> tensors;
  for (const std::string& name : names_) {
    const Tensor* tensor = Find(outcome.tensors, name);
    if (tensor == nullptr) return absl::InternalError(absl::StrCat("the server returned no ", name));
    tensors.push_back({name, *tensor});
  }
  if (absl::Status checked = CheckTopWeights(tensors); !checked.ok()) return checked;
  const Tensor* const weights = draws() ? Find(outcome.tensors, "attention_weights") : nullptr;
  DrawStyle style = style_;
  if (draws()) {
    if (absl::Status checked = CheckDrawable(weights); !checked.ok()) return checked;
    const std::vector<std::int64_t>& shape = weights->shape();
    if (absl::Status status = FitLabels(shape[shape.size() - 2], shape.back(), &style); !status.ok()) return status;
  }
  NoteWidened(files_.empty() ? "" : files_[index], tensors);
  WarnOfNan(inputs_[index], tensors);
  absl::Status status = files_.empty() ? absl::OkStatus() : WriteTensors(files_[index], tensors);
  status.Update(Print(inputs_[index], tensors, outcome));
  if (weights != nullptr) status.Update(Draw(*weights, style));
  if (timing_ && form_ != Form::kJson) ForPeople() << FormatTiming(outcome);
  return status;
}

}  // namespace attend::client
