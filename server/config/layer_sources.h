// Where the layers of a server's configuration come from, as its flags say it.
#ifndef ATTEND_SERVER_CONFIG_LAYER_SOURCES_H_
#define ATTEND_SERVER_CONFIG_LAYER_SOURCES_H_

#include <string>
#include <vector>

namespace attend::server {

struct LayerSources {
  std::vector<std::string> layers;   // --layer: NAME=FILE[#PREFIX], NAME=init:SEED:EMBED_DIM.
  std::vector<std::string> configs;  // --layer-config: NAME=FILE.json, NAME={...}.
  std::string directory;             // --layer-dir; empty for none.
  bool skip_broken = false;          // --skip-broken-layers.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONFIG_LAYER_SOURCES_H_
