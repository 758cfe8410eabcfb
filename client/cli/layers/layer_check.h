// `attend layers check`: what a server would load from a file, and who says so; without a server.
#ifndef ATTEND_CLIENT_CLI_LAYERS_LAYER_CHECK_H_
#define ATTEND_CLIENT_CLI_LAYERS_LAYER_CHECK_H_

#include <string>
#include <vector>

#include "client/cli/layers/layer_file.h"

namespace attend::client {

// One fact about a layer: what it is, and where that comes from.
struct LayerFact {
  std::string name;
  std::string value;
  std::string origin;
};

// Everything that decides what the layer computes. Pure.
std::vector<LayerFact> FactsOf(const LayerFile& file);

// A line for each fact, or one JSON object: {"facts": [{"name", "value", "origin"}...], "tensors": [...], "notes":
// [...]}.
std::string CheckTable(const LayerFile& file);
std::string CheckJson(const LayerFile& file);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_LAYERS_LAYER_CHECK_H_
