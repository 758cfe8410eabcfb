// What there is to say about a layer, for people and for tools.
#ifndef ATTEND_CLIENT_TEXT_LAYER_TABLES_H_
#define ATTEND_CLIENT_TEXT_LAYER_TABLES_H_

#include <string>
#include <vector>

#include "attend/v1/layer_service.pb.h"
#include "client/io/layer_file.h"
#include "client/text/message_json.h"

namespace attend::client {

// A line for each fact about a layer in the server.
std::string LayerTable(const v1::Layer& layer);

// A line for each layer under a line of headings; the headings alone for none.
std::string LayersTable(const std::vector<v1::Layer>& layers);

// What decides what the layer in a file computes, and who says so: {"facts": [{"name", "value", "origin"}...],
// "tensors":
// [...], "notes": [...]}. Pure.
Json CheckJson(const LayerFile& file);

// A line for each fact, for the tensors and for each note of CheckJson.
std::string CheckTable(const Json& check);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_TEXT_LAYER_TABLES_H_
