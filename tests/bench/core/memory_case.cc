// What computing needs beyond its inputs and outputs.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/bench/core/cases.h"
#include "tests/bench/core/harness.h"
#include "tests/bench/core/sdpa.h"

namespace attend::bench {
namespace {

// The value of `field` (`VmRSS`, `VmHWM`) in bytes. Linux counts pages in batches, so it is right to some 64 pages.
double ProcessBytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::stod(line.substr(field.size() + 1)) * 1024;
  }
  return NAN;
}

// Starts this program anew rather than forking: memory that earlier cases freed would be there already, and not show;
// and a fork has only one of the threads, perhaps without the locks that the others held.
Figure InFreshProcess() {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe");
  std::FILE* answer = popen(("'" + program + "' " + kMemoryArgument).c_str(), "r");
  if (answer == nullptr) return {.skipped = "cannot start " + program};
  double fraction = NAN;
  const bool read = std::fscanf(answer, "%lf", &fraction) == 1;
  if (pclose(answer) != 0 || !read || std::isnan(fraction)) return {.skipped = program + " did not measure"};
  return {fraction};
}

}  // namespace

double ExtraBytesOverIo() {
  const Sdpa sdpa({.queries = 32768, .keys = 32768, .dim = 64});
  Sdpa({.queries = 64, .keys = 64, .dim = 64}).Compute();  // Loads the code.
  std::ofstream reset("/proc/self/clear_refs");
  reset << "5" << std::flush;  // Sets VmHWM back to VmRSS.
  if (!reset) return NAN;
  const double before = ProcessBytes("VmRSS");
  sdpa.Compute();
  return std::max(0.0, ProcessBytes("VmHWM") - before) / static_cast<double>(sdpa.IoBytes());
}

void RegisterMemoryCase() { Register("core/memory/T32768/D64/extra_bytes_over_io", InFreshProcess); }

}  // namespace attend::bench
