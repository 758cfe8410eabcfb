// Which keys of a config.json may be about attention.
#ifndef ATTEND_FORMATS_HUGGING_FACE_MODEL_KEYS_H_
#define ATTEND_FORMATS_HUGGING_FACE_MODEL_KEYS_H_

#include "absl/status/status.h"
#include "formats/hugging_face/model_config.h"
#include "formats/layers/layer_settings.h"

namespace attend::formats {

// Refuses a key that may be about attention by its name, has a value, and is neither applied nor known to change
// nothing. Of a type whose rules are not known no key is applied; what `caller` sets is settled. Pure. Errors:
// INVALID_ARGUMENT naming the key.
absl::Status CheckModelKeys(const ModelConfig& config, const CallerSettings& caller);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_HUGGING_FACE_MODEL_KEYS_H_
