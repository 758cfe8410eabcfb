"""Named layers as the checkpoints and configurations that a server loads: the oracle's layer under any library's names."""

import numpy as np
from google.protobuf import json_format

from attend_testing.element_types import BF16, F16, F32, F64, encode
from attend_testing.requests import to_options
from attend_testing.stubs import layers_pb

_FORMS = {"half": layers_pb.ROTARY_FORM_HALF, "interleaved": layers_pb.ROTARY_FORM_INTERLEAVED}
_KINDS = {"rms": layers_pb.NORM_KIND_RMS, "layer": layers_pb.NORM_KIND_LAYER}
_STORED = {F32: np.float32, F64: np.float64, F16: np.float16, BF16: np.uint16}

# Query, key, value (or the matrix that holds all three), output, and the norms of query and key.
_NAMES = {
    "notebook": ("query", "key", "value", "output"),
    "bert": ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    "vit": ("attention.attention.query", "attention.attention.key", "attention.attention.value", "attention.output.dense"),
    "distilbert": ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
    "llama": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "self_attn.q_norm", "self_attn.k_norm"),
    "opt": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),
    "phi": (
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.dense",
        "self_attn.q_layernorm",
        "self_attn.k_layernorm",
    ),
    "t5": ("layer.0.SelfAttention.q", "layer.0.SelfAttention.k", "layer.0.SelfAttention.v", "layer.0.SelfAttention.o"),
}
_FUSED = {
    "gpt2": ("attn.c_attn", "attn.c_proj"),
    "gpt-neox": ("attention.query_key_value", "attention.dense"),
    "phi3": ("self_attn.qkv_proj", "self_attn.o_proj"),
    "mpt": ("attn.Wqkv", "attn.out_proj"),
    "timm": ("attn.qkv", "attn.proj"),
}
NAMINGS = (*_NAMES, "torch-mha", *_FUSED)


def tensors(layer, naming, data_type=F32, prefix=""):
    """{name: array} as attend_testing.safetensors.save takes it: the layer's numbers, in `data_type`, named by `naming`."""
    named = {}

    def put(name, linear, separator=".", transposed=False):
        weight, bias = linear
        named[f"{name}{separator}weight"] = weight.T if transposed else weight
        if bias is not None:
            named[f"{name}{separator}bias"] = bias

    parts = [layer.projections[name] for name in ("query", "key", "value")]
    output = layer.projections.get("output")
    if naming == "torch-mha":
        put("self_attn.in_proj", _stacked(parts), "_")
        put("self_attn.out_proj", output)
    elif naming in _FUSED:
        fused = _grouped(parts, layer) if naming == "gpt-neox" else _stacked(parts)
        put(_FUSED[naming][0], fused, transposed=naming == "gpt2")
        put(_FUSED[naming][1], output, transposed=naming == "gpt2")
    else:
        for name, linear in zip(_NAMES[naming][:4], [*parts, output], strict=True):
            if linear is not None:
                put(name, linear)
        for name, norm in zip(_NAMES[naming][4:], (layer.query_norm, layer.key_norm), strict=False):
            if norm is not None:
                put(name, (norm.weight, norm.bias))
    return {prefix + name: stored(array, data_type) for name, array in named.items()}


def stored(array, data_type):
    return np.frombuffer(encode(array, data_type), _STORED[data_type]).reshape(array.shape)


def _stacked(parts):
    biases = [bias for _, bias in parts]
    return np.concatenate([weight for weight, _ in parts]), None if biases[0] is None else np.concatenate(biases)


def _grouped(parts, layer):
    """For each key head the query heads that use it, the key head and the value head, as GPT-NeoX and Falcon have them."""
    group = layer.heads // layer.kv_heads

    def cut(array, heads):
        return array.reshape(heads, -1, *array.shape[1:])

    def joined(arrays):
        query, key, value = cut(arrays[0], layer.heads), cut(arrays[1], layer.kv_heads), cut(arrays[2], layer.kv_heads)
        rows = [part for k in range(layer.kv_heads) for part in (*query[k * group : (k + 1) * group], key[k], value[k])]
        return np.concatenate(rows)

    biases = [bias for _, bias in parts]
    return joined([weight for weight, _ in parts]), None if biases[0] is None else joined(biases)


def config(layer):
    """The LayerConfig of what the weights do not say; nothing is left to defaults."""
    message = layers_pb.LayerConfig(num_heads=layer.heads, num_kv_heads=layer.kv_heads, options=to_options(layer.options))
    if (norm := layer.query_norm or layer.key_norm) is not None:
        message.norm_kind, message.norm_epsilon, message.norm_adds_one = _KINDS[norm.kind], norm.epsilon, norm.adds_one
    if (rotary := layer.rotary) is not None:
        to = message.rotary_embedding
        to.form, to.base, to.dim = _FORMS[rotary.form], rotary.base, rotary.dim or 0
        if (scaling := rotary.llama3) is not None:
            to.llama3.CopyFrom(layers_pb.Llama3Scaling(**vars(scaling)))
        elif rotary.linear_factor != 1:
            to.linear_factor = rotary.linear_factor
    return message


def config_json(layer):
    return json_format.MessageToJson(config(layer), indent=None)
