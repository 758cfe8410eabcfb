#include "client/cli/results/result_flags.h"

#include <CLI/Validators.hpp>
#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <string_view>

namespace attend::client {
namespace {

constexpr char kGroup[] = "Results";
constexpr const char* kAllForms[] = {"json", "table", "npy"};
constexpr char kFormatVariable[] = "ATTEND_FORMAT";

// Whether the environment asks for a form that some command has and this one, which offers `forms`, does not: it was
// meant for the others, and must not keep this one from working.
bool VariableIsForOthers(const std::vector<std::string>& forms) {
  const char* variable = std::getenv(kFormatVariable);
  if (variable == nullptr || std::find(forms.begin(), forms.end(), variable) != forms.end()) return false;
  return std::find(std::begin(kAllForms), std::end(kAllForms), std::string_view(variable)) != std::end(kAllForms);
}

}  // namespace

void AddFormatFlag(CLI::App* command, const std::vector<std::string>& forms, std::string* format) {
  CLI::Option* option =
      command->add_option("-o,--format", *format, "Form on stdout (default: a table on a terminal, else the raw form)")
          ->check(CLI::IsMember(forms))
          ->group(kGroup);
  if (!VariableIsForOthers(forms)) option->envname(kFormatVariable);
}

void AddResultFlags(CLI::App* command, ResultFlags* flags) {
  AddFormatFlag(command, {std::begin(kAllForms), std::end(kAllForms)}, &flags->format);
  CLI::Option* output =
      command
          ->add_option("--output", flags->output,
                       "Write the tensors to FILE.npy or FILE.safetensors. A symbolic link and the file's mode stay; a "
                       "device or pipe takes .npy")
          ->group(kGroup);
  command->add_option("--output-dir", flags->output_dir, "Write one file per input into this directory")
      ->excludes(output)
      ->group(kGroup);
  command->add_flag("--show", flags->show, "Draw the attention weights in the terminal")->group(kGroup);
  command->add_option("--plot", flags->plot, "Draw the attention weights into FILE.png")->group(kGroup);
  command->add_flag("--verify", flags->verify, "Compare every returned tensor with a float64 computation made here")
      ->group(kGroup);
  command
      ->add_option("--expect", flags->expect,
                   "Compare with [NAME=]FILE.npy or [NAME=]FILE.safetensors:TENSOR; NAME is the returned tensor "
                   "(default: output). May be repeated")
      ->allow_extra_args(false)
      ->group(kGroup);
  command->add_flag("--timing", flags->timing, "Print where the time went")->group(kGroup);
}

}  // namespace attend::client
