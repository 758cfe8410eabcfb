#include "client/cli/result_flags.h"

#include <CLI/Validators.hpp>

namespace attend::client {
namespace {

constexpr char kGroup[] = "Results";

}  // namespace

void AddFormatFlag(CLI::App* command, const std::vector<std::string>& forms, std::string* format) {
  command->add_option("-o,--format", *format, "Form on stdout (default: a table on a terminal, else the raw form)")
      ->check(CLI::IsMember(forms))
      ->envname("ATTEND_FORMAT")
      ->group(kGroup);
}

void AddResultFlags(CLI::App* command, ResultFlags* flags) {
  AddFormatFlag(command, {"json", "table", "npy"}, &flags->format);
  CLI::Option* output =
      command->add_option("--output", flags->output, "Write the tensors to FILE.npy or FILE.safetensors")
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
