#include "client/cli/commands/layer_commands.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/commands/progress.h"
#include "client/cli/commands/report.h"
#include "client/cli/layers/layer_check.h"
#include "client/cli/layers/layer_file.h"
#include "client/cli/layers/layer_report.h"
#include "client/cli/results/result_flags.h"
#include "client/io/stream.h"
#include "client/lib/layer_client.h"
#include "client/lib/server_error.h"

namespace attend::client {
namespace {

constexpr int kPageSize = 1000;  // The largest that the service has.

CallOptions CallOf(const ConnectionFlags& common) { return CallOptions(*ParseTimeout(common.timeout)); }

CLI::App* AddSubcommand(CLI::App* layers, const std::string& name, const std::string& help, LayersFlags* flags) {
  CLI::App* command = layers->add_subcommand(name, help);
  command->fallthrough();
  AddFormatFlag(command, {"json", "table"}, &flags->format);
  return command;
}

void AddName(CLI::App* command, LayersFlags* flags) {
  command->add_option("NAME", flags->name, "The layer's name, as in minilm/0")->required();
}

// What is known about a layer in a file beside its bytes.
void AddLayerFlags(CLI::App* command, LayersFlags* flags) {
  command->add_option("--prefix", flags->prefix, "What stands before the tensors' names, as in encoder.layer.0.");
  command->add_option(
      "--num-heads,--heads", flags->num_heads,
      "Query heads (default: what the file says; else 1 for the notebook's naming, and an error for others)");
  command->add_option("--num-kv-heads,--kv-heads", flags->num_kv_heads,
                      "Key and value heads (default: what the file says, or --num-heads)");
  command->add_option("--config", flags->config,
                      "A JSON file with a LayerConfig: rotary embedding, norms, options; heads by flag go before it");
}

void AddCheck(CLI::App* layers, LayersFlags* flags) {
  CLI::App* command = AddSubcommand(
      layers, "check", "What a server would load from a file, and who says so: naming, heads, masks, ...; needs none",
      flags);
  command
      ->add_option("FILE", flags->file,
                   "A .safetensors file or the .safetensors.index.json of a sharded model; the "
                   "config.json beside it is read")
      ->required();
  AddLayerFlags(command, flags);
}

void AddUpload(CLI::App* layers, LayersFlags* flags) {
  CLI::App* command = AddSubcommand(layers, "upload", "Upload a layer, or have one made", flags);
  AddName(command, flags);
  command->add_option("FILE", flags->file, "A .safetensors file with the weights, in any common naming");
  AddLayerFlags(command, flags);
  command->add_option("--init", flags->init,
                      "Instead of FILE: SEED:DIM, the weights of torch.manual_seed(SEED); SimpleAttention(DIM)");
  command->add_flag("--replace", flags->replace, "Replace the layer of this name, if there is one");
  command->add_option("--etag", flags->etag, "With --replace: only if the layer there has this etag");
  command->add_option("--sha256", flags->sha256, "The file's SHA-256, for the server to compare; auto computes it");
}

void Print(const LayersFlags& flags, const v1::Layer& layer) {
  std::cout << (flags.format == "json" ? LayerJson(layer) : LayerTable(layer));
}

ExitCode RunList(const LayersFlags& flags, const LayerClient& client, const ConnectionFlags& common) {
  v1::ListLayersRequest request;
  request.set_page_size(kPageSize);
  request.set_name_prefix(flags.prefix);
  std::vector<v1::Layer> layers;
  for (const absl::StatusOr<v1::ListLayersResponse>& page : client.Pages(request, CallOf(common))) {
    if (!page.ok()) return ReportCall(page.status(), common);
    layers.insert(layers.end(), page->layers().begin(), page->layers().end());
  }
  std::cout << (flags.format == "json" ? LayersJson(layers) : LayersTable(layers));
  return kExitOk;
}

ExitCode RunGet(const LayersFlags& flags, const LayerClient& client, const ConnectionFlags& common) {
  const auto answer = client.Get(flags.name, CallOf(common));
  if (!answer.ok()) return ReportCall(answer.status(), common);
  Print(flags, answer->response.layer());
  return kExitOk;
}

ExitCode RunCheck(const LayersFlags& flags) {
  const absl::StatusOr<v1::LayerConfig> config = BuildLayerConfig(flags);
  if (!config.ok()) return ReportUsage(config.status());
  const absl::StatusOr<LayerFile> file = ReadLayerFile(flags.file, flags.prefix, *config);
  if (!file.ok()) return ReportUsage(file.status());
  std::cout << (flags.format == "json" ? CheckJson(*file) : CheckTable(*file));
  return kExitOk;
}

ExitCode RunDelete(const LayersFlags& flags, const LayerClient& client, const ConnectionFlags& common) {
  v1::DeleteLayerRequest request;
  request.set_name(flags.name);
  request.set_etag(flags.etag);
  const auto answer = client.Delete(request, CallOf(common));
  if (!answer.ok()) return ReportCall(answer.status(), common);
  if (flags.format == "json") {
    std::cout << nlohmann::ordered_json{{"name", flags.name}, {"deleted", true}}.dump() << "\n";
  } else {
    std::cout << "deleted " << flags.name << "\n";
  }
  return kExitOk;
}

// Sends the file. Its size is added to the time that a call may take, a second for each MiB.
LayerClient::Created Send(const v1::CreateLayerHeader& header, std::ifstream* file, const LayerClient& client,
                          const ConnectionFlags& common) {
  file->seekg(0, std::ios::end);
  const std::ifstream::pos_type size = file->tellg();
  file->clear();
  file->seekg(0);
  file->clear();  // A pipe has no size and cannot be wound.
  UploadOptions options(*ParseTimeout(common.timeout) + absl::Seconds(1) * (std::max<std::int64_t>(size, 0) >> 20));
  Progress progress(1);
  progress.Show(UploadText(header.name(), {}));
  options.on_progress = [&](const UploadProgress& so_far) {
    progress.Show(UploadText(header.name(), so_far));
    return true;
  };
  return client.Create(header, *file, options);
}

ExitCode RunUpload(const LayersFlags& flags, const LayerClient& client, const ConnectionFlags& common) {
  const absl::StatusOr<v1::CreateLayerHeader> header = BuildHeader(flags);
  if (!header.ok()) return ReportUsage(header.status());
  absl::StatusOr<std::ifstream> file = std::ifstream();
  if (!flags.file.empty()) file = OpenFile(flags.file);
  if (!file.ok()) return ReportUsage(file.status());
  const LayerClient::Created created =
      flags.file.empty() ? client.CreateSeeded(*header, CallOf(common)) : Send(*header, &*file, client, common);
  if (absl::IsDataLoss(created.status()) && !AnsweredByServer(created.status())) {
    return ReportUsage(Annotate(flags.file, created.status()));
  }
  if (!created.ok()) return ReportCall(created.status(), common);
  Print(flags, created->response.layer());
  return kExitOk;
}

}  // namespace

CLI::App* AddLayersCommand(CLI::App* app, LayersFlags* flags) {
  CLI::App* layers = app->add_subcommand("layers", "The layers that a server keeps by name");
  layers->require_subcommand(1);
  layers->fallthrough();
  CLI::App* list = AddSubcommand(layers, "list", "All layers", flags);
  list->add_option("--prefix", flags->prefix, "Only those whose names start with it");
  AddName(AddSubcommand(layers, "get", "What a layer is", flags), flags);
  AddUpload(layers, flags);
  AddCheck(layers, flags);
  CLI::App* remove = AddSubcommand(layers, "delete", "Delete a layer; requests that use it go on", flags);
  AddName(remove, flags);
  remove->add_option("--etag", flags->etag, "Only if the layer has this etag");
  return layers;
}

ExitCode RunLayers(const CLI::App& command, const LayersFlags& flags, const ConnectionFlags& common) {
  const std::string name = command.get_subcommands().front()->get_name();
  if (name == "check") return RunCheck(flags);
  const absl::StatusOr<Client> client = ConnectWith(common);
  if (!client.ok()) return ReportConnect(client.status());
  const LayerClient layers(*client);
  if (name == "list") return RunList(flags, layers, common);
  if (name == "get") return RunGet(flags, layers, common);
  if (name == "upload") return RunUpload(flags, layers, common);
  return RunDelete(flags, layers, common);
}

}  // namespace attend::client
