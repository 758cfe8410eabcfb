// The parameters of rotary embeddings in a config.json: a dictionary of their own since transformers 5, with one for
// each kind of layer where these differ; before that, keys of the model and `rope_scaling`.
#ifndef ATTEND_FORMATS_HUGGING_FACE_ROTARY_PARAMETERS_H_
#define ATTEND_FORMATS_HUGGING_FACE_ROTARY_PARAMETERS_H_

#include <cstdint>
#include <string>

#include "formats/hugging_face/model_config.h"

namespace attend::formats {

struct RotaryParameters {
  ModelConfig values;
  const char* key;         // Of `values` in the file.
  std::string type = {};   // `default` if the file says none.
  bool truncates = true;   // Of yarn: transformers looks for it outside of the parameters of one kind.
  bool is_nested = false;  // Whether `values` are those of one kind of layer.
};

// Refuses, in the status of `config`, a type that is not known, and a key that has a value and that the type does not
// read, also where transformers warns and goes on: somebody meant something by it.
RotaryParameters FindRotaryParameters(ModelConfig& config, bool is_sliding);

// Sets what the type makes of the frequencies of a head of `head_dim` elements (0: not known). REQUIRES: the base and
// how many elements are turned are set. Mistakes set the status of `config` or of `source.values`.
void SetScaling(ModelConfig& config, RotaryParameters& source, std::int64_t head_dim, Rotary& rotary);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_HUGGING_FACE_ROTARY_PARAMETERS_H_
