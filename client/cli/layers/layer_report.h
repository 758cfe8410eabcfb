// Named layers for people and for tools.
#ifndef ATTEND_CLIENT_CLI_LAYERS_LAYER_REPORT_H_
#define ATTEND_CLIENT_CLI_LAYERS_LAYER_REPORT_H_

#include <string>
#include <vector>

#include "attend/v1/layer_service.pb.h"

namespace attend::client {

// One JSON object: the fields of v1::Layer under their names in the proto, numbers as numbers; `config` is protobuf's
// own JSON form, which `attend layers upload --config` takes.
std::string LayerJson(const v1::Layer& layer);

// One object for all layers: {"layers": [...]}, each as above.
std::string LayersJson(const std::vector<v1::Layer>& layers);

// A line for each fact about a layer.
std::string LayerTable(const v1::Layer& layer);

// A line for each layer under a line of headings; the headings alone for none.
std::string LayersTable(const std::vector<v1::Layer>& layers);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_LAYERS_LAYER_REPORT_H_
