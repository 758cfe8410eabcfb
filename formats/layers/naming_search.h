// Which naming a checkpoint follows at a prefix, and the words for when none does.
#ifndef ATTEND_FORMATS_LAYERS_NAMING_SEARCH_H_
#define ATTEND_FORMATS_LAYERS_NAMING_SEARCH_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "formats/layers/naming_table.h"
#include "formats/safetensors/checkpoint.h"

namespace attend::formats {

// A naming at a place of a checkpoint: all the tensors that it needs are there.
struct NamingFit {
  const Naming* naming = nullptr;
  std::string module;       // The prefix and the naming's module; empty or with a `.` at its end.
  std::string_view output;  // Of Naming::outputs; empty when there is none.

  // The full name of a tensor, as in `module` + `query` + `.weight`.
  std::string Weight(std::string_view linear) const { return Name(linear, naming->separator, "weight"); }
  std::string Bias(std::string_view linear) const { return Name(linear, naming->separator, "bias"); }
  std::string Name(std::string_view linear, std::string_view separator, std::string_view part) const;
};

// Errors: INVALID_ARGUMENT when none or more than one fits; the message shows what the file has and what was looked
// for.
// `model_type` is that of the model's config.json; empty when there is none.
absl::StatusOr<NamingFit> FindNaming(const Checkpoint& checkpoint, std::string_view prefix,
                                     std::string_view model_type = {});

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_LAYERS_NAMING_SEARCH_H_
