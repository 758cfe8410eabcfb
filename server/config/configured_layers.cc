#include "server/config/configured_layers.h"

#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "formats/command_line/nearest.h"
#include "formats/files/mapped_file.h"
#include "formats/files/sha256.h"
#include "formats/hugging_face/hugging_face_config.h"
#include "formats/safetensors/checkpoint.h"
#include "server/layers/layer_config.h"
#include "server/layers/layer_registry.h"
#include "server/layers/layer_weights.h"

namespace attend::server {
namespace {

constexpr std::size_t kMaxConfigBytes = std::size_t{1} << 20;
constexpr char kInit[] = "init:";

// One layer that is asked for.
struct Source {
  std::string flag;  // `--layer` or `--layer-dir`, for messages.
  std::string file;  // Of weights, or the folder, or what `init:` is followed by.
  std::string prefix;
  std::optional<v1::SeededWeights> init;
  bool is_folder = false;
  v1::LayerConfig config;  // --layer-config.
};
using SourceMap = std::map<std::string, Source>;

absl::Status Invalid(const std::string& flag, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", why));
}

// `NAME=REST`, both there and the name one.
absl::StatusOr<std::pair<std::string, std::string>> SplitName(const std::string& flag, const std::string& value) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(value, absl::MaxSplits('=', 1));
  if (parts.second.empty()) {
    const std::string what = absl::StrCat("'", value, "' is not of the form NAME=...");
    if (absl::StrContains(value, "=")) return Invalid(flag, absl::StrCat(what, ": nothing stands behind the name"));
    return Invalid(flag, absl::StrCat(what, "; write NAME=", value, ", where NAME is what requests call the layer"));
  }
  const absl::Status name = CheckLayerName(parts.first, absl::StrCat("the name in '", value, "'"));
  if (!name.ok()) return Invalid(flag, std::string(name.message()));
  return parts;
}

absl::StatusOr<v1::SeededWeights> ParseInit(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  std::int64_t seed = 0, dim = 0;
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[1], &seed) || !absl::SimpleAtoi(parts[2], &dim)) {
    return Invalid("--layer", absl::StrCat("'", text, "' is not of the form init:SEED:EMBED_DIM"));
  }
  v1::SeededWeights seeded;
  seeded.set_seed(seed);
  seeded.set_embed_dim(dim);
  return seeded;
}

absl::Status AddSource(const std::string& name, Source source, SourceMap& sources) {
  const std::string flag = source.flag;
  if (sources.emplace(name, std::move(source)).second) return absl::OkStatus();
  return Invalid(flag, absl::StrCat("there are two layers with the name '", name, "'"));
}

absl::Status AddFromFlag(const std::string& value, SourceMap& sources) {
  absl::StatusOr<std::pair<std::string, std::string>> parts = SplitName("--layer", value);
  if (!parts.ok()) return parts.status();
  Source source;
  source.flag = "--layer";
  source.file = parts->second;
  if (absl::StartsWith(source.file, kInit)) {
    const absl::StatusOr<v1::SeededWeights> init = ParseInit(source.file);
    if (!init.ok()) return init.status();
    source.init = *init;
  } else if (const std::size_t hash = source.file.rfind('#'); hash != std::string::npos) {
    source.prefix = source.file.substr(hash + 1);
    source.file.resize(hash);
  }
  return AddSource(parts->first, std::move(source), sources);
}

absl::Status AddFromDirectory(const std::string& directory, SourceMap& sources) {
  const absl::StatusOr<std::vector<std::string>> names = ListLayerDir(directory);
  if (!names.ok()) return Invalid("--layer-dir", std::string(names.status().message()));
  for (const std::string& name : *names) {
    const absl::Status valid = CheckLayerName(name, absl::StrCat("the folder's name in ", directory));
    if (!valid.ok()) return Invalid("--layer-dir", std::string(valid.message()));
    Source source;
    source.flag = "--layer-dir";
    source.file = (std::filesystem::path(directory) / name).string();
    source.is_folder = true;
    if (absl::Status status = AddSource(name, std::move(source), sources); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status AddConfig(const std::string& value, SourceMap& sources) {
  constexpr char kFlag[] = "--layer-config";
  const absl::StatusOr<std::pair<std::string, std::string>> parts = SplitName(kFlag, value);
  if (!parts.ok()) return parts.status();
  const auto& [name, text] = *parts;
  const auto found = sources.find(name);
  if (found == sources.end()) {
    std::vector<std::string> known;
    for (const auto& [other, source] : sources) known.push_back(other);
    return Invalid(kFlag, absl::StrCat("there is no layer '", name, "' in --layer or --layer-dir",
                                       formats::DidYouMean(name, known)));
  }
  const bool is_inline = text.front() == '{';
  absl::StatusOr<std::string> json = is_inline ? text : formats::ReadTextFile(text, kMaxConfigBytes);
  if (!json.ok()) return Invalid(kFlag, std::string(json.status().message()));
  const absl::StatusOr<v1::LayerConfig> config = ParseLayerConfig(*json);
  const absl::Status status = config.ok() ? CheckRotaryHasEffect(*config) : config.status();
  if (!status.ok()) return Invalid(kFlag, absl::StrCat(is_inline ? name : text, ": ", status.message()));
  found->second.config = MergeLayerConfig(found->second.config, *config);
  return absl::OkStatus();
}

// Where the config.json of the model that the layer is from would be.
std::string ConfigBeside(const Source& source) {
  return std::filesystem::path(source.file).replace_filename("config.json").string();
}

// Loads layers one after the other; those of one file read its header once.
class Loader {
 public:
  explicit Loader(InstructionSet instruction_set) : instruction_set_(instruction_set) {}

  absl::StatusOr<std::shared_ptr<const Layer>> Load(const std::string& name, Source source) {
    if (source.is_folder) {
      absl::StatusOr<LayerDirEntry> folder = ReadLayerDirEntry(source.file);
      if (!folder.ok()) return folder.status();
      source.file = std::move(folder->checkpoint);
      source.prefix = std::move(folder->prefix);
      source.config = MergeLayerConfig(folder->config, source.config);
    }
    if (source.init && !source.config.ignored_tensors().empty()) {
      return absl::InvalidArgumentError(
          "config.ignored_tensors is set, and there are no tensors, because `init` makes the weights");
    }
    const absl::StatusOr<LayerWeights> weights = source.init ? SeededLayer(*source.init) : ReadWeights(source);
    if (!weights.ok()) return weights.status();
    absl::StatusOr<std::shared_ptr<const Layer>> layer =
        Layer::Create(*weights, source.config, MakeIdentity(name, source), instruction_set_);
    if (layer.ok()) return layer;
    return absl::InvalidArgumentError(absl::StrCat(source.file, ": ", layer.status().message()));
  }

 private:
  absl::StatusOr<const formats::Checkpoint*> OpenOnce(const std::string& file) {
    if (const auto found = checkpoints_.find(file); found != checkpoints_.end()) return &found->second;
    absl::StatusOr<formats::Checkpoint> checkpoint = formats::Checkpoint::Open(file);
    if (!checkpoint.ok()) return checkpoint.status();
    return &checkpoints_.emplace(file, *std::move(checkpoint)).first->second;
  }

  absl::StatusOr<LayerWeights> ReadWeights(const Source& source) {
    const absl::StatusOr<const formats::Checkpoint*> checkpoint = OpenOnce(source.file);
    if (!checkpoint.ok()) return checkpoint.status();
    const absl::StatusOr<std::optional<std::string>> beside = ReadConfigBeside(source);
    if (!beside.ok()) return beside.status();
    absl::StatusOr<LayerWeights> weights =
        FindLayer(**checkpoint, source.prefix, source.config, *beside, ConfigBeside(source));
    if (weights.ok()) return weights;
    return absl::InvalidArgumentError(absl::StrCat(source.file, ": ", weights.status().message()));
  }

  // The text of the model's config.json beside the checkpoint, if there is one.
  static absl::StatusOr<std::optional<std::string>> ReadConfigBeside(const Source& source) {
    const std::string path = ConfigBeside(source);
    std::error_code error;
    if (!std::filesystem::exists(path, error)) return std::optional<std::string>();
    const absl::StatusOr<std::string> text = formats::ReadTextFile(path, formats::kMaxHuggingFaceConfigBytes);
    if (!text.ok()) return text.status();
    return std::optional<std::string>(*text);
  }

  // Whatever decides on the layer and may change between two starts. REQUIRES: its checkpoint has been opened.
  std::vector<std::string> FilesOf(const Source& source) const {
    if (source.init) return {};
    std::vector<std::string> files = checkpoints_.at(source.file).files();
    files.push_back(source.file);  // Of a sharded model, the index.
    files.push_back(ConfigBeside(source));
    return files;
  }

  // The etag is made of what the layer is made of; a file is known by its size and its time.
  Layer::Identity MakeIdentity(const std::string& name, const Source& source) const {
    Layer::Identity identity;
    identity.name = name;
    identity.origin = source.init ? absl::StrCat("init seed ", source.init->seed())
                                  // Where this machine keeps it is nobody's business.
                                  : absl::StrCat(std::filesystem::path(source.file).filename().string(),
                                                 source.prefix.empty() ? "" : "#", source.prefix);
    std::string made_of = absl::StrCat(source.file, "\n", source.prefix, "\n", source.config.SerializeAsString());
    for (const std::string& file : FilesOf(source)) {
      struct stat status {};
      if (stat(file.c_str(), &status) != 0) continue;
      absl::StrAppend(&made_of, "\n", status.st_size, ".", status.st_mtim.tv_sec, ".", status.st_mtim.tv_nsec);
    }
    identity.etag = formats::ToHex(formats::Sha256::Of(made_of)).substr(0, kEtagDigits);
    identity.read_only = true;
    identity.create_time_ms = absl::ToUnixMillis(absl::Now());
    return identity;
  }

  InstructionSet instruction_set_;
  std::map<std::string, formats::Checkpoint> checkpoints_;
};

}  // namespace

absl::StatusOr<std::vector<std::shared_ptr<const Layer>>> LoadConfiguredLayers(
    const LayerSources& sources, InstructionSet instruction_set,
    absl::FunctionRef<void(const std::string& sentence)> on_skipped) {
  SourceMap map;
  for (const std::string& value : sources.layers) {
    if (absl::Status status = AddFromFlag(value, map); !status.ok()) return status;
  }
  if (!sources.directory.empty()) {
    if (absl::Status status = AddFromDirectory(sources.directory, map); !status.ok()) return status;
  }
  for (const std::string& value : sources.configs) {
    if (absl::Status status = AddConfig(value, map); !status.ok()) return status;
  }
  std::vector<std::shared_ptr<const Layer>> layers;
  Loader loader(instruction_set);
  for (const auto& [name, source] : map) {
    absl::StatusOr<std::shared_ptr<const Layer>> layer = loader.Load(name, source);
    if (layer.ok()) {
      layers.push_back(*std::move(layer));
      continue;
    }
    const std::string sentence =
        absl::StrCat(source.flag, ": the layer '", name, "' cannot be loaded: ", layer.status().message());
    if (!sources.skip_broken) {
      return absl::InvalidArgumentError(absl::StrCat(sentence, " (--skip-broken-layers starts the server without it)"));
    }
    on_skipped(sentence);
  }
  return layers;
}

}  // namespace attend::server
