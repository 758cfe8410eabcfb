// `attend layers list | get | upload | check | delete` (attend.v1.LayerService).

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/cli/commands/commands.h"
#include "client/cli/commands/progress.h"
#include "client/cli/requests/attention_flags.h"
#include "client/cli/results/output_format.h"
#include "client/io/layer_file.h"
#include "client/io/stream.h"
#include "client/lib/layer_client.h"
#include "client/lib/server_error.h"
#include "client/text/layer_tables.h"
#include "client/text/message_json.h"
#include "formats/files/sha256.h"
#include "formats/safetensors/foreign_format.h"
#include "formats/safetensors/safetensors_header.h"

namespace attend::client {
namespace {

constexpr int kPageSize = 1000;                                   // The largest that the service has.
constexpr std::int64_t kMaxConfigBytes = std::int64_t{16} << 20;  // Slopes and sinks of 1024 heads are far below.

struct LayersFlags {
  std::string name;       // get, upload, delete
  std::string prefix;     // list: of names; upload, check: of the tensors' names in the file
  std::string file;       // The following: upload, and as far as they are about the file check
  std::string init;       // SEED:DIM
  std::string config;     // A file
  v1::LayerConfig heads;  // Their numbers alone
  bool replace = false;
  bool ignore_config_json = false;
  std::string sha256;  // 64 digits, or `auto`
  std::string etag;    // upload, delete
  std::string format;  // `json` or `table`
};

CallOptions CallOf(const ConnectionFlags& connection) { return CallOptions(*ParseTimeout(connection.timeout)); }

void AddName(CLI::App* command, LayersFlags* flags) {
  command->add_option("NAME", flags->name, "The layer's name, as in minilm/0")->required();
}

// What is known about a layer in a file beside its bytes.
void AddFileFlags(CLI::App* command, LayersFlags* flags) {
  command->add_option("--prefix", flags->prefix, "What stands before the tensors' names, as in encoder.layer.0.");
  AddHeadFlags(command, &flags->heads);
  command->add_option("--config", flags->config,
                      "A JSON file with a LayerConfig: rotary embedding, norms, options; heads by flag go before it");
}

void AddListFlags(CLI::App* command, LayersFlags* flags) {
  command->add_option("--prefix", flags->prefix, "Only those whose names start with it");
}

void AddCheckFlags(CLI::App* command, LayersFlags* flags) {
  command
      ->add_option(
          "FILE", flags->file,
          "A .safetensors file or the .safetensors.index.json of a sharded model; the config.json beside it is "
          "read")
      ->required();
  AddFileFlags(command, flags);
  command->add_flag("--ignore-config-json", flags->ignore_config_json,
                    "Check FILE as if there were no config.json beside it");
}

void AddUploadFlags(CLI::App* command, LayersFlags* flags) {
  AddName(command, flags);
  command->add_option(
      "FILE", flags->file,
      "A .safetensors file with the weights, in any common naming; what the config.json beside it says is "
      "sent with it");
  AddFileFlags(command, flags);
  command->add_flag("--ignore-config-json", flags->ignore_config_json,
                    "Upload FILE as if there were no config.json beside it");
  command->add_option("--init", flags->init,
                      "Instead of FILE: SEED:DIM, the weights of torch.manual_seed(SEED); SimpleAttention(DIM)");
  command->add_flag("--replace", flags->replace, "Replace the layer of this name, if there is one");
  command->add_option("--etag", flags->etag, "With --replace: only if the layer there has this etag");
  command->add_option("--sha256", flags->sha256, "The file's SHA-256, for the server to compare; auto computes it");
}

void AddDeleteFlags(CLI::App* command, LayersFlags* flags) {
  AddName(command, flags);
  command->add_option("--etag", flags->etag, "Only if the layer has this etag");
}

// What --config and the numbers of heads say. Errors: INVALID_ARGUMENT, naming the flag; those of reading files.
absl::StatusOr<v1::LayerConfig> BuildLayerConfig(const LayersFlags& flags) {
  v1::LayerConfig config;
  if (!flags.config.empty()) {
    const absl::StatusOr<std::string> text = ReadSmallFile(flags.config, kMaxConfigBytes);
    if (!text.ok()) return text.status();
    absl::StatusOr<v1::LayerConfig> parsed = ParseLayerConfig(*text);
    if (!parsed.ok()) return Annotate(absl::StrCat("--config ", flags.config), parsed.status());
    config = *std::move(parsed);
  }
  config.MergeFrom(flags.heads);
  return config;
}

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
  if (flags.file.empty() && flags.init.empty() && absl::EndsWith(flags.name, ".safetensors")) {
    return absl::InvalidArgumentError(
        absl::StrCat("the layer needs a NAME before its file: attend layers upload NAME ", flags.name));
  }
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

// In lower-case hexadecimal. Errors: NOT_FOUND when the file cannot be opened; INVALID_ARGUMENT when it can be read
// only once, as a pipe; DATA_LOSS when reading fails.
absl::StatusOr<std::string> Sha256OfFile(const std::string& path) {
  std::error_code error;
  const bool is_pipe = std::filesystem::is_other(path, error);  // Before it is opened: that waits for a writer.
  if (is_pipe) {
    return absl::InvalidArgumentError(absl::StrCat("--sha256 auto reads the file before it is sent, and ", path,
                                                   " can be read only once; give the digits"));
  }
  absl::StatusOr<std::ifstream> file = OpenFile(path);
  if (!file.ok()) return file.status();
  formats::Sha256 hash;
  std::vector<char> piece(std::size_t{1} << 20);
  while (file->good()) {
    file->read(piece.data(), static_cast<std::streamsize>(piece.size()));
    hash.Update({piece.data(), static_cast<std::size_t>(file->gcount())});
  }
  if (file->bad()) return absl::DataLossError(absl::StrCat("reading ", path, " failed"));
  return formats::ToHex(hash.Finish());
}

// Whether a config.json beside the file is read as a model's: not if the flags say so, or --config names it.
bool ReadsConfigJson(const LayersFlags& flags) {
  std::error_code error;
  const std::filesystem::path beside = std::filesystem::path(flags.file).replace_filename("config.json");
  return !flags.ignore_config_json && !std::filesystem::equivalent(flags.config, beside, error);
}

// What an upload with these flags is to become; reads the files that they name. Errors: INVALID_ARGUMENT, naming the
// flag; those of reading files. REQUIRES: CheckSource(flags) is OK.
absl::StatusOr<v1::CreateLayerHeader> BuildHeader(const LayersFlags& flags) {
  v1::CreateLayerHeader header;
  header.set_name(flags.name);
  header.set_prefix(flags.prefix);
  header.set_replace(flags.replace);
  header.set_etag(flags.etag);
  header.set_sha256(absl::AsciiStrToLower(flags.sha256));  // As the server has it.
  if (!flags.init.empty()) {
    if (absl::Status status = ReadInit(flags.init, header.mutable_init()); !status.ok()) return status;
  }
  absl::StatusOr<v1::LayerConfig> config = BuildLayerConfig(flags);
  if (!config.ok()) return config.status();
  if (!flags.file.empty() && ReadsConfigJson(flags)) {
    config = ConfigOfUpload(flags.file, flags.prefix, *config);
    if (!config.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          config.status().message(), "; --ignore-config-json uploads the file without the config.json beside it"));
    }
  }
  if (config->ByteSizeLong() > 0) *header.mutable_config() = *std::move(config);
  if (header.sha256() != "auto") return header;
  absl::StatusOr<std::string> digest = Sha256OfFile(flags.file);
  if (!digest.ok()) return digest.status();
  header.set_sha256(*std::move(digest));
  return header;
}

// One of the subcommands, as it runs with a client.
struct Call {
  const LayersFlags& flags;
  const LayerClient client;
  const ConnectionFlags& connection;

  ExitCode Show(const v1::Layer& layer) const {
    Print(flags.format, ToJson(layer, 1), LayerTable(layer));
    return kExitOk;
  }
};

ExitCode RunList(const Call& call) {
  v1::ListLayersRequest request;
  request.set_page_size(kPageSize);
  request.set_name_prefix(call.flags.prefix);
  std::vector<v1::Layer> layers;
  for (const absl::StatusOr<v1::ListLayersResponse>& page : call.client.Pages(request, CallOf(call.connection))) {
    if (!page.ok()) return ReportCall(page.status(), call.connection);
    layers.insert(layers.end(), page->layers().begin(), page->layers().end());
  }
  Json all = Json::array();
  for (const v1::Layer& layer : layers) all.push_back(ToJson(layer, 1));
  Print(call.flags.format, {{"layers", std::move(all)}}, LayersTable(layers));
  return kExitOk;
}

ExitCode RunGet(const Call& call) {
  const auto result = call.client.Get(call.flags.name, CallOf(call.connection));
  return result.ok() ? call.Show(result->response.layer()) : ReportCall(result.status(), call.connection);
}

ExitCode RunDelete(const Call& call) {
  v1::DeleteLayerRequest request;
  request.set_name(call.flags.name);
  request.set_etag(call.flags.etag);
  const auto result = call.client.Delete(request, CallOf(call.connection));
  if (!result.ok()) return ReportCall(result.status(), call.connection);
  Print(call.flags.format, {{"name", call.flags.name}, {"deleted", true}},
        absl::StrCat("deleted ", call.flags.name, "\n"));
  return kExitOk;
}

// Sends the file. Its size is added to the time that a call may take, a second for each MiB.
LayerClient::Created Send(const Call& call, const v1::CreateLayerHeader& header, std::ifstream* file) {
  file->seekg(0, std::ios::end);
  const std::ifstream::pos_type size = file->tellg();
  file->clear();
  file->seekg(0);
  file->clear();  // A pipe has no size and cannot be wound.
  UploadOptions options(CallOf(call.connection).timeout + absl::Seconds(1) * (std::max<std::int64_t>(size, 0) >> 20));
  Progress progress(1);
  progress.Show(UploadText(header.name(), {}));
  options.on_progress = [&](const UploadProgress& so_far) {
    progress.Show(UploadText(header.name(), so_far));
    return true;
  };
  return call.client.Create(header, *file, options);
}

// The file that is to be uploaded. Errors: those of opening it; INVALID_ARGUMENT for one of another format, so that it
// is not sent whole before the server says so. Of a pipe nothing is read ahead.
absl::StatusOr<std::ifstream> OpenUpload(const std::string& path) {
  absl::StatusOr<std::ifstream> file = OpenFile(path);
  if (!file.ok() || file->tellg() != std::ifstream::pos_type(0)) return file;
  std::string first(kSafetensorsLengthBytes, '\0');
  file->read(first.data(), kSafetensorsLengthBytes);
  first.resize(static_cast<std::size_t>(file->gcount()));
  file->clear();
  file->seekg(0);
  if (absl::Status foreign = RefuseForeignFormat(first); !foreign.ok()) return Annotate(path, foreign);
  return file;
}

ExitCode RunUpload(const Call& call) {
  const LayersFlags& flags = call.flags;
  if (absl::Status status = CheckSource(flags); !status.ok()) return ReportUsage(status);
  absl::StatusOr<std::ifstream> file = std::ifstream();
  if (!flags.file.empty()) file = OpenUpload(flags.file);
  if (!file.ok()) return ReportUsage(file.status());
  const absl::StatusOr<v1::CreateLayerHeader> header = BuildHeader(flags);
  if (!header.ok()) return ReportUsage(header.status());
  const LayerClient::Created created =
      flags.file.empty() ? call.client.CreateSeeded(*header, CallOf(call.connection)) : Send(call, *header, &*file);
  if (absl::IsDataLoss(created.status()) && !AnsweredByServer(created.status())) {
    return ReportUsage(Annotate(flags.file, created.status()));
  }
  return created.ok() ? call.Show(created->response.layer()) : ReportCall(created.status(), call.connection);
}

ExitCode RunCheck(const LayersFlags& flags) {
  const absl::StatusOr<v1::LayerConfig> config = BuildLayerConfig(flags);
  if (!config.ok()) return ReportUsage(config.status());
  const absl::StatusOr<LayerFile> file = ReadLayerFile(flags.file, flags.prefix, *config, ReadsConfigJson(flags));
  if (!file.ok()) return ReportUsage(file.status());
  const Json check = CheckJson(*file);
  Print(flags.format, check, CheckTable(check));
  return kExitOk;
}

struct Verb {
  const char* name;
  const char* help;
  void (*add_flags)(CLI::App*, LayersFlags*);
  ExitCode (*run)(const Call&);  // Null for check, which needs no server.
};
constexpr Verb kVerbs[] = {
    {"list", "All layers (RPC ListLayers)", AddListFlags, RunList},
    {"get", "What a layer is (RPC GetLayer)", AddName, RunGet},
    {"upload", "Upload a layer, or have one made (RPC CreateLayer)", AddUploadFlags, RunUpload},
    {"check", "What a server would load from a file, and who says so: naming, heads, masks, ...; needs none",
     AddCheckFlags, nullptr},
    {"delete", "Delete a layer; requests that use it go on (RPC DeleteLayer)", AddDeleteFlags, RunDelete},
};

}  // namespace

std::vector<Command> AddLayerCommands(CLI::App* app, const ConnectionFlags& connection) {
  CLI::App* layers = app->add_subcommand("layers", "The layers that a server keeps by name");
  layers->require_subcommand(1);
  layers->fallthrough();
  std::vector<Command> commands;
  for (const Verb& verb : kVerbs) {
    const auto flags = std::make_shared<LayersFlags>();
    CLI::App* command = layers->add_subcommand(verb.name, verb.help);
    command->fallthrough();
    AddFormatFlag(command, {"json", "table"}, &flags->format);
    verb.add_flags(command, flags.get());
    commands.push_back({command, [flags, &verb, &connection] {
                          if (verb.run == nullptr) return RunCheck(*flags);
                          const absl::StatusOr<Client> client = ConnectWith(connection);
                          if (!client.ok()) return ReportConnect(client.status());
                          return verb.run({*flags, LayerClient(*client), connection});
                        }});
  }
  return commands;
}

}  // namespace attend::client
