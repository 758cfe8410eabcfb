#include "server/config/configured_layers.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "formats/files/json_text.h"
#include "formats/files/mapped_file.h"
#include "server/layers/layer_config.h"

namespace attend::server {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxLayerJsonBytes = std::size_t{1} << 20;

absl::StatusOr<std::vector<fs::directory_entry>> List(const std::string& path) {
  std::error_code error;
  fs::directory_iterator entries(path, error);
  std::vector<fs::directory_entry> list;
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) list.push_back(*entries);
  if (error) return absl::NotFoundError(absl::StrCat("cannot read the folder ", path, ": ", error.message()));
  return list;
}

// The one file whose name ends with `ending`, or `standard` if it is there; empty when there is none.
absl::StatusOr<std::string> FindOne(const std::vector<fs::directory_entry>& entries, const std::string& ending,
                                    const std::string& standard) {
  std::vector<std::string> found;
  for (const fs::directory_entry& entry : entries) {
    const std::string name = entry.path().filename().string();
    if (name == standard) return entry.path().string();
    if (absl::EndsWith(name, ending) && name.front() != '.') found.push_back(entry.path().string());
  }
  if (found.size() <= 1) return found.empty() ? "" : found[0];
  return absl::InvalidArgumentError(
      absl::StrCat("it has ", found.size(), " files that end in ", ending, " and none is called ", standard));
}

absl::StatusOr<std::string> FindCheckpoint(const std::string& path) {
  const absl::StatusOr<std::vector<fs::directory_entry>> entries = List(path);
  if (!entries.ok()) return entries.status();
  // First, because beside an index there are the files that it lists.
  absl::StatusOr<std::string> file = FindOne(*entries, ".safetensors.index.json", "model.safetensors.index.json");
  if (file.ok() && file->empty()) file = FindOne(*entries, ".safetensors", "model.safetensors");
  if (!file.ok()) return absl::InvalidArgumentError(absl::StrCat(path, ": ", file.status().message()));
  if (!file->empty()) return file;
  return absl::NotFoundError(absl::StrCat(path, ": there is no .safetensors file"));
}

absl::Status ReadLayerJson(const std::string& path, LayerDirEntry& entry) {
  const absl::StatusOr<std::string> text = formats::ReadTextFile(path, kMaxLayerJsonBytes);
  if (!text.ok()) return text.status();
  absl::StatusOr<nlohmann::json> json = formats::ParseJsonObject(*text);
  if (!json.ok()) return absl::InvalidArgumentError(absl::StrCat(path, ": ", json.status().message()));
  if (const auto prefix = json->find("prefix"); prefix != json->end()) {
    if (!prefix->is_string()) return absl::InvalidArgumentError(absl::StrCat(path, ": `prefix` is not a string"));
    entry.prefix = prefix->get<std::string>();
    json->erase(prefix);
  }
  absl::StatusOr<v1::LayerConfig> config = ParseLayerConfig(json->dump());
  const absl::Status status = config.ok() ? CheckRotaryHasEffect(*config) : config.status();
  if (!status.ok()) return absl::InvalidArgumentError(absl::StrCat(path, ": ", status.message()));
  entry.config = *std::move(config);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LayerDirEntry> ReadLayerDirEntry(const std::string& path) {
  absl::StatusOr<std::string> checkpoint = FindCheckpoint(path);
  if (!checkpoint.ok()) return checkpoint.status();
  LayerDirEntry entry;
  entry.checkpoint = *std::move(checkpoint);
  const fs::path layer_json = fs::path(path) / "layer.json";
  std::error_code error;
  if (!fs::exists(layer_json, error)) return entry;
  if (absl::Status status = ReadLayerJson(layer_json.string(), entry); !status.ok()) return status;
  return entry;
}

absl::StatusOr<std::vector<std::string>> ListLayerDir(const std::string& path) {
  const absl::StatusOr<std::vector<fs::directory_entry>> entries = List(path);
  if (!entries.ok()) return entries.status();
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : *entries) {
    std::error_code error;
    const std::string name = entry.path().filename().string();
    if (name.front() != '.' && entry.is_directory(error)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace attend::server
