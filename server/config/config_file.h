// The keys of a --config file, checked before CLI11 reads it: its own word for an unknown key names neither the file
// nor what was meant.
#ifndef ATTEND_SERVER_CONFIG_CONFIG_FILE_H_
#define ATTEND_SERVER_CONFIG_CONFIG_FILE_H_

#include <CLI/CLI.hpp>

#include <istream>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace attend::server {

// CLI11's own format, TOML's simple parts, but that a `#` within quotes begins no comment: layers have it in their
// values
// (`layer = "a=model.safetensors#layers.0."`).
class ConfigFileFormat : public CLI::ConfigTOML {
 public:
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override;
};

// Whether every key of the file at `path` is a configurable flag of `app`. Errors: NOT_FOUND when the file cannot be
// read, INVALID_ARGUMENT naming the file, the key and the known key that is nearest to it.
absl::Status CheckConfigFile(const CLI::App& app, const std::string& path);

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONFIG_CONFIG_FILE_H_
