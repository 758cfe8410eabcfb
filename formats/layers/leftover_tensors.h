// What of a file a layer does not read, and whether it may do without.
#ifndef ATTEND_FORMATS_LAYERS_LEFTOVER_TENSORS_H_
#define ATTEND_FORMATS_LAYERS_LEFTOVER_TENSORS_H_

#include <set>
#include <string>

#include "absl/status/status.h"
#include "formats/layers/layer_settings.h"
#include "formats/layers/naming_search.h"
#include "formats/safetensors/checkpoint.h"

namespace attend::formats {

// Refuses tensors that would be ignored although they may change the result: those below the module that are not in
// `read`, no known buffer and not ignored by the caller. Pure. Errors: INVALID_ARGUMENT naming the tensor.
absl::Status CheckNothingIsLost(const Checkpoint& checkpoint, const NamingFit& fit, const CallerSettings& caller,
                                const std::set<std::string>& read);

// Refuses the frequencies of a rotary embedding, in the module or around it, of which neither the caller nor `settings`
// says what it is: which elements form a pair and which scaling there is, the frequencies do not say. Pure. Errors:
// INVALID_ARGUMENT naming the tensor, about config.rotary_embedding.
absl::Status CheckRotaryIsSaid(const Checkpoint& checkpoint, const std::string& module, const CallerSettings& caller,
                               const LayerSettings& settings);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_LAYERS_LEFTOVER_TENSORS_H_
