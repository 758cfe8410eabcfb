// What `attend layers upload` says before the bytes: BuildHeader of layer_commands.h.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/cli/commands/layer_commands.h"
#include "client/cli/layers/layer_file.h"
#include "client/cli/layers/sha256.h"
#include "client/io/stream.h"

namespace attend::client {
namespace {

constexpr std::int64_t kMaxConfigBytes = std::int64_t{16} << 20;  // Slopes and sinks of 1024 heads are far below.

absl::Status ReadInit(const std::string& text, v1::SeededWeights* init) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  std::int64_t seed = 0;
  std::int64_t dim = 0;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &seed) || !absl::SimpleAtoi(parts[1], &dim)) {
    return absl::InvalidArgumentError(absl::StrCat("--init ", text, ": expected SEED:DIM, two integers as in 42:64"));
  }
  init->set_seed(seed);
  init->set_embed_dim(dim);
  return absl::OkStatus();
}

absl::Status CheckSource(const LayersFlags& flags) {
  if (flags.file.empty() == flags.init.empty()) {
    return absl::InvalidArgumentError("upload takes a FILE.safetensors or --init SEED:DIM, one of them");
  }
  if (!flags.etag.empty() && !flags.replace) {
    return absl::InvalidArgumentError("--etag says which version is replaced; it goes with --replace");
  }
  if (flags.file.empty() && (!flags.prefix.empty() || !flags.sha256.empty())) {
    return absl::InvalidArgumentError("--prefix and --sha256 belong to a file, and --init has none");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::LayerConfig> BuildLayerConfig(const LayersFlags& flags) {
  v1::LayerConfig config;
  if (!flags.config.empty()) {
    const absl::StatusOr<std::string> text = ReadSmallFile(flags.config, kMaxConfigBytes);
    if (!text.ok()) return text.status();
    absl::StatusOr<v1::LayerConfig> parsed = ParseLayerConfig(*text);
    if (!parsed.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("--config ", flags.config, ": ", parsed.status().message()));
    }
    config = *std::move(parsed);
  }
  if (flags.num_heads.has_value()) config.set_num_heads(*flags.num_heads);
  if (flags.num_kv_heads.has_value()) config.set_num_kv_heads(*flags.num_kv_heads);
  return config;
}

absl::StatusOr<v1::CreateLayerHeader> BuildHeader(const LayersFlags& flags) {
  absl::Status status = CheckSource(flags);
  if (!status.ok()) return status;
  v1::CreateLayerHeader header;
  header.set_name(flags.name);
  header.set_prefix(flags.prefix);
  header.set_replace(flags.replace);
  header.set_etag(flags.etag);
  if (!flags.init.empty()) status.Update(ReadInit(flags.init, header.mutable_init()));
  if (status.ok()) {
    absl::StatusOr<v1::LayerConfig> config = BuildLayerConfig(flags);
    if (!config.ok()) return config.status();
    if (config->ByteSizeLong() > 0) *header.mutable_config() = *std::move(config);
  }
  if (!status.ok()) return status;
  if (flags.sha256 != "auto") {
    header.set_sha256(flags.sha256);
    return header;
  }
  absl::StatusOr<std::string> digest = Sha256OfFile(flags.file);
  if (!digest.ok()) return digest.status();
  header.set_sha256(*std::move(digest));
  return header;
}

}  // namespace attend::client
