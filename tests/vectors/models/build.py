"""A small random model of a class that transformers ships."""

import copy
import inspect
import json

import torch
import transformers
from transformers.models.auto import modeling_auto

import capture
import inputs
import redraw
import shrink
from in_double import InDouble

# Where transformers says which classes a model type has; the first that has one gives the class to save.
_BASE = "MODEL_MAPPING_NAMES"
_CAUSAL = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
_HEADS = (
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES", "MODEL_FOR_PRETRAINING_MAPPING_NAMES", "MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES",
    "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES", "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES",
)  # fmt: skip
MOST_PARAMETERS = 70_000_000


def warm_up():
    """What every process would do again: most of an import is common to all models, and version 5 compiles many names."""
    for name in ("LlamaForCausalLM", "BertModel", "CLIPModel", "ViTModel", "WhisperModel", "Qwen2VLModel", "SwinModel"):
        getattr(transformers, name)
    try:
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        get_checkpoint_conversion_mapping("llama")
    except ImportError:
        pass


def _classes_of(mapping, model_type):
    names = getattr(modeling_auto, mapping, {}).get(model_type, ())
    return [names] if isinstance(names, str) else list(names)


def cases():
    """{model type: [class names]}: for each type its base class and its causal one, or the first other."""
    found = {}
    for model_type in transformers.CONFIG_MAPPING:
        names = _classes_of(_BASE, model_type)[:1] + _classes_of(_CAUSAL, model_type)[:1]
        if not names:
            names = next((n for n in (_classes_of(mapping, model_type) for mapping in _HEADS) if n), [])[:1]
        found[model_type] = list(dict.fromkeys(names))
    return found


class Transformers:
    """Makes, calls and saves the models of one class that transformers ships."""

    def __init__(self, model_type, class_name, sizes):
        self.model_type, self.class_name, self._sizes, self._with_tables = model_type, class_name, sizes, set()

    def supplied(self, path):
        """The LayerConfig, in JSON, that a caller has to give for a layer.

        None but what is in the files; T5's table of relative positions becomes options.bias, as docs/layers.md says.
        """
        return json.dumps({"ignored_tensors": ["relative_attention_bias.weight"]}) if path in self._with_tables else None

    def attempts(self):
        """Functions that make a model each, for as long as none can be called."""
        config = transformers.CONFIG_MAPPING[self.model_type]
        default, named = config().to_dict(), inspect.signature(config.__init__).parameters
        taken = {key: size for key, size in (self._sizes or {}).items() if key in named and key not in default}  # And not kept.
        for kv_heads in (shrink.KV_HEADS, shrink.HEADS):
            yield lambda kv_heads=kv_heads: self.make(shrink.shrink(default, kv_heads, self._sizes) | taken)

    def make(self, config):
        made = transformers.CONFIG_MAPPING[self.model_type].from_dict(config)
        for one in (made, *(value for value in vars(made).values() if isinstance(value, transformers.PretrainedConfig))):
            one._experts_implementation = "eager"  # The grouped products know no float64.
        if (count := self._parameters(made)) > MOST_PARAMETERS:
            raise ValueError(f"{count} parameters although every known size is small")
        return in_double(lambda: self._construct(made))

    def _construct(self, config):
        return getattr(transformers, self.class_name)._from_config(config, attn_implementation="eager")

    def _parameters(self, config):
        """How many there would be; 0 for a class that cannot be made without memory."""
        try:
            with torch.device("meta"):
                return sum(p.numel() for p in self._construct(copy.deepcopy(config)).parameters())
        except (NotImplementedError, RuntimeError):
            return 0

    def calls(self, model, seed):
        self._with_tables = {path for path, one in model.named_modules() if hasattr(one, "relative_attention_bias")}
        return inputs.calls(model, seed)

    def save(self, model, directory):
        model.save_pretrained(directory, max_shard_size="10GB")
        return "model.safetensors"


def in_double(make):
    torch.set_default_dtype(torch.float64)
    try:
        with InDouble():
            return make().double().eval()
    finally:
        torch.set_default_dtype(torch.float32)


def watched(source, model, seed):
    """A Watch after all passes that succeed, and what those that failed said."""
    watch, failures = capture.Watch(model), []
    torch.set_default_dtype(torch.float64)
    try:
        for what, function, arguments in source.calls(model, seed):
            try:
                watch.run(function, arguments)
            except Exception as error:
                failures.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
    finally:
        watch.close()
        torch.set_default_dtype(torch.float32)
    watch.found = {path: one for path, one in watch.found.items() if one.output is not None}
    return watch, failures


def build(source, seed=0):
    """(model, {path: Attention}, failures of passes) after all parameters are redrawn and scores rescaled."""
    errors = []
    for attempt in source.attempts():
        try:
            model = attempt()
        except Exception as error:
            errors.append(f"{type(error).__name__}: {str(error)[:200]}")
            continue
        redraw.redraw(model, seed)
        watch, failures = watched(source, model, seed)
        for _ in range(10):
            found = list(watch.found.values())
            if not redraw.rescale([one.module for one in found], [one.deviation() for one in found]):
                break
            watch, failures = watched(source, model, seed)
        if watch.found or not failures:
            return model, watch.found, failures
        errors.extend(failures)
    raise RuntimeError("; ".join(dict.fromkeys(errors)))
