// Shows to Python what the server makes of seeds and files, byte for byte.
//
//   checkpoint_tool seeded SEED EMBED_DIM      the weights, as they lie in memory
//   checkpoint_tool verdict FILE...            for each .safetensors file a line: `ok`, or `no: ` and the reason
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "formats/safetensors/safetensors_header.h"
#include "server/layers/layer_weights.h"

namespace {

int WriteSeeded(const char* seed, const char* embed_dim) {
  attend::v1::SeededWeights seeded;
  seeded.set_seed(std::strtoll(seed, nullptr, 10));
  seeded.set_embed_dim(std::strtoll(embed_dim, nullptr, 10));
  const auto weights = attend::server::SeededLayer(seeded);
  if (!weights.ok()) return 1;
  const auto bytes = static_cast<std::size_t>(attend::server::SeededWeightBytes(seeded.embed_dim()));
  return std::fwrite(weights->query.weight, 1, bytes, stdout) == bytes ? 0 : 1;
}

void PrintVerdict(const char* path) {
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto file = attend::ParseSafetensors(bytes);
  const std::string reason(file.status().message());
  std::printf("%s\n", file.ok() ? "ok" : ("no: " + reason).c_str());
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command == "seeded" && argc == 4) return WriteSeeded(argv[2], argv[3]);
  if (command != "verdict") return 2;
  for (int i = 2; i < argc; ++i) PrintVerdict(argv[i]);
  return 0;
}
