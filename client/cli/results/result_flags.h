// The flags of `compute` and `sdpa` that say what to do with the answer.
#ifndef ATTEND_CLIENT_CLI_RESULTS_RESULT_FLAGS_H_
#define ATTEND_CLIENT_CLI_RESULTS_RESULT_FLAGS_H_

#include <CLI/App.hpp>
#include <string>
#include <vector>

namespace attend::client {

struct ResultFlags {
  std::string format;      // `json`, `table`, `npy`, or empty for what suits stdout.
  std::string output;      // A .npy or .safetensors file.
  std::string output_dir;  // For a batch: a file per input.
  bool show = false;
  std::string plot;  // A .png file.
  bool verify = false;
  std::vector<std::string> expect;
  bool timing = false;
};

// Declares the flags on `command`; they are read into `flags`, which must outlive parsing.
void AddResultFlags(CLI::App* command, ResultFlags* flags);

// Declares -o alone, with the given forms. ATTEND_FORMAT is read unless it names a form that only other commands have.
void AddFormatFlag(CLI::App* command, const std::vector<std::string>& forms, std::string* format);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_RESULTS_RESULT_FLAGS_H_
