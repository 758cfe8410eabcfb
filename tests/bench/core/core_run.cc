// attend-core-run: times the core alone, without a server, for peers.py.
//
// Reads one JSON object a line from standard input and answers each with one line, {"ms": M}: the median time of a
// computation in milliseconds, or {"error": "..."}. It stays alive between lines, so that its measurements can
// alternate with those of other programs. Keys of a line:
//
//   query, key, value           files of little-endian numbers; required
//   type                        float32 by default, or bfloat16; also of the output
//   fast                        true: PRECISION_FAST, with what kernels this processor has for it
//   heads, kv_heads             1 by default; kv_heads: `heads`
//   tokens, dim                 query length, which is the key length too, and head size; required
//   merged                      true: the files hold [tokens, heads * dim], else [heads, tokens, dim]
//   causal, window_left, mask   the options; `mask` is a file of [tokens, tokens] bytes
//   weights                     true: the attention weights are computed too, averaged over the heads
//   threads, repeats            1 by default
//   output                      a file to write the result of the last computation to; in the layout of the query
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <fstream>
#include <future>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/compute/compute_sdpa.h"
#include "core/runtime/executor.h"
#include "core/tensor/aligned_buffer.h"

namespace attend {
namespace {

using nlohmann::json;

// The elements of a file, aligned as the server aligns them.
template <typename T>
AlignedBuffer<T> ReadFile(const std::string& path, std::int64_t size) {
  AlignedBuffer<T> buffer(size);
  std::ifstream file(path, std::ios::binary);
  const std::streamsize bytes = static_cast<std::streamsize>(size * static_cast<std::int64_t>(sizeof(T)));
  if (!file.read(reinterpret_cast<char*>(buffer.data()), bytes)) throw std::runtime_error("cannot read " + path);
  return buffer;
}

struct Shape {
  std::int64_t heads;
  std::int64_t tokens;
  std::int64_t dim;
  bool merged;

  std::int64_t size() const { return heads * tokens * dim; }
  template <typename T>
  BasicHeadsView<T> View(T* data) const {
    return merged ? MergedHeads(data, 1, heads, tokens, dim) : SplitHeads(data, 1, heads, tokens, dim);
  }
};

// One command: its tensors, of T, and what to compute on them.
template <typename T>
class Measurement {
 public:
  explicit Measurement(const json& command)
      : query_shape_{command.value("heads", std::int64_t{1}), command.at("tokens"), command.at("dim"),
                     command.value("merged", false)},
        key_shape_(query_shape_) {
    key_shape_.heads = command.value("kv_heads", query_shape_.heads);
    query_ = ReadFile<T>(command.at("query"), query_shape_.size());
    key_ = ReadFile<T>(command.at("key"), key_shape_.size());
    value_ = ReadFile<T>(command.at("value"), key_shape_.size());
    output_ = AlignedBuffer<T>(query_shape_.size());
    outputs_.output = query_shape_.View(output_.data());
    if (command.value("weights", false)) AddWeights();
    ReadOptions(command);
  }

  // The median of `repeats` times in milliseconds, after one that does not count.
  double Run(const ComputeContext& context, int repeats) {
    const absl::StatusOr<SdpaProblem> problem = SdpaProblem::Create({.query = query_shape_.View<const T>(query_.data()),
                                                                     .key = key_shape_.View<const T>(key_.data()),
                                                                     .value = key_shape_.View<const T>(value_.data()),
                                                                     .options = options_});
    if (!problem.ok()) throw std::runtime_error(std::string(problem.status().message()));
    std::vector<double> times;
    for (int i = 0; i <= repeats; ++i) {
      const auto start = std::chrono::steady_clock::now();
      const absl::Status computed = ComputeSdpa(*problem, outputs_, context);
      times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
      if (!computed.ok()) throw std::runtime_error(std::string(computed.message()));
    }
    std::nth_element(times.begin() + 1, times.begin() + 1 + repeats / 2, times.end());
    return times[static_cast<std::size_t>(1 + repeats / 2)];
  }

  void WriteOutput(const std::string& path) const {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(output_.data()),
               static_cast<std::streamsize>(output_.size() * static_cast<std::int64_t>(sizeof(T))));
  }

 private:
  void AddWeights() {
    weights_ = AlignedBuffer<float>(query_shape_.tokens * query_shape_.tokens);
    outputs_.averaged_weights = SplitHeads(weights_.data(), 1, 1, query_shape_.tokens, query_shape_.tokens);
  }

  void ReadOptions(const json& command) {
    if (command.value("fast", false)) options_.precision = Precision::kFast;
    if (command.value("causal", false)) options_.causal = CausalMode::kBottomRight;
    if (command.contains("window_left")) options_.sliding_window_left = command["window_left"].get<std::int64_t>();
    if (!command.contains("mask")) return;
    const std::int64_t tokens = query_shape_.tokens;
    mask_ = ReadFile<std::uint8_t>(command["mask"], tokens * tokens);
    options_.mask = SplitHeads<const std::uint8_t>(mask_.data(), 1, 1, tokens, tokens);
  }

  Shape query_shape_;
  Shape key_shape_;
  AlignedBuffer<T> query_;
  AlignedBuffer<T> key_;
  AlignedBuffer<T> value_;
  AlignedBuffer<T> output_;
  AlignedBuffer<float> weights_;
  AlignedBuffer<std::uint8_t> mask_;
  AttentionOptions options_;
  SdpaOutputs outputs_;
};

// Runs on one of the executor's threads, as in the server, so that the others help.
template <typename T>
double MeasureOnThreads(Measurement<T>& measurement, int threads, int repeats) {
  ComputeContext context;
  context.fast_kernels = ChooseFastKernels(FastKernelsMode::kOn, context.instruction_set);
  if (threads == 1) return measurement.Run(context, repeats);
  Executor executor({.num_threads = threads});
  context.executor = &executor;
  std::promise<double> result;
  const bool submitted = executor.Submit([&] {
    try {
      result.set_value(measurement.Run(context, repeats));
    } catch (...) {
      result.set_exception(std::current_exception());
    }
  });
  if (!submitted) throw std::runtime_error("the executor takes no task");
  return result.get_future().get();
}

template <typename T>
json Measure(const json& command) {
  Measurement<T> measurement(command);
  const double ms = MeasureOnThreads(measurement, command.value("threads", 1), command.value("repeats", 1));
  if (command.contains("output")) measurement.WriteOutput(command["output"]);
  return {{"ms", ms}};
}

json Answer(const std::string& line) {
  try {
    const json command = json::parse(line);
    const std::string type = command.value("type", "float32");
    if (type == "float32") return Measure<float>(command);
    if (type == "bfloat16") return Measure<BFloat16>(command);
    return {{"error", type + ": not a type"}};
  } catch (const std::exception& error) {
    return {{"error", error.what()}};
  }
}

}  // namespace
}  // namespace attend

int main() {
  std::string line;
  while (std::getline(std::cin, line)) std::cout << attend::Answer(line) << std::endl;
  return 0;
}
