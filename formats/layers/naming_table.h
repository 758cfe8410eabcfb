// How the libraries that write checkpoints call the weights of an attention layer, as data.
#ifndef ATTEND_FORMATS_LAYERS_NAMING_TABLE_H_
#define ATTEND_FORMATS_LAYERS_NAMING_TABLE_H_

#include <cstdint>
#include <string_view>

#include "absl/types/span.h"

namespace attend::formats {

// How the rows of one matrix are shared out to query, key and value, with H query heads and K key and value heads.
enum class Fusion : std::uint8_t {
  kNone,     // Each has a matrix of its own.
  kRows,     // All of query's H * E rows, then key's K * E, then value's.
  kGroups,   // For each key head: the H / K query heads that use it, the key head, the value head.
  kFourths,  // In four equal blocks, each of a fourth of query's rows, then of value's, then of key's.
  kBigCode,  // kRows with one key head; kGroups with as many as query heads.
};

// Names of the norms of query and key, without `.weight` and `.bias`.
struct NormNames {
  std::string_view query;
  std::string_view key;
};

// Names without `.weight` and `.bias` (torch-mha: `_weight`, `_bias`); an empty one means there is none.
struct Naming {
  std::string_view name;  // For people, and v1::Layer.naming.
  // Where below the prefix the names stand: the first for a prefix that is the layer's, the empty one for the
  // attention module's own.
  absl::Span<const std::string_view> modules;
  Fusion fusion = Fusion::kNone;
  std::string_view query;  // The fused matrix, if it is one.
  std::string_view key = {};
  std::string_view value = {};
  absl::Span<const std::string_view> outputs;  // The first that there is.
  bool needs_output = true;
  absl::Span<const NormNames> norms = {};  // The first of which there is one.
  bool has_separate_biases = false;        // `q_bias`, `k_bias` and `v_bias` beside query's matrix.
  // The one model type, by its config.json, whose weights have these names in this form; empty for all others. Names
  // alone cannot tell it from another naming.
  std::string_view model_type = {};
  bool transposed = false;           // [in_features, out_features].
  std::string_view separator = ".";  // Before `weight` and `bias` of query, key and value.
  std::string_view fused_bias = {};  // A bias of three parts beside matrices that are not fused.
  bool unit_scale = false;           // Scores are not divided by sqrt(E), in the modules of its own model.
  bool one_head = false;             // When nobody says how many there are; else that is an error.
  // Below the module, but no part of attention: what comes before or behind it in the model. A name that ends in `.`
  // stands for all that begin with it.
  absl::Span<const std::string_view> beside = {};
};

// Every naming that is recognised. Two may share names, but no two fit the same layer of the same file.
absl::Span<const Naming> Namings();

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_LAYERS_NAMING_TABLE_H_
