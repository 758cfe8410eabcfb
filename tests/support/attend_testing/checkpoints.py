"""Writes small checkpoints as the common libraries name their weights, with what a layer of each must be found as.

    layer = random_layer(np.random.default_rng(1), num_heads=4, num_kv_heads=2, head_dim=8, embed_dim=12)
    write(path, NAMINGS["llama"](layer, "model.layers.0."), "BF16")
    layer.rounded("BF16").query   # [H * E, D] in float64, as the server sees it

Fused and transposed matrices are laid out here from their libraries' own descriptions, not from the server's code.
"""

import dataclasses
import json
import struct

import numpy as np

from attend_testing.element_types import BF16, F16, F32, F64, encode, rounded

_TYPES = {"F32": F32, "F64": F64, "F16": F16, "BF16": BF16}


@dataclasses.dataclass
class Layer:
    """The matrices of one layer in float64; weights are [out_features, in_features], absent biases and norms None."""

    num_heads: int
    num_kv_heads: int
    query: np.ndarray  # [H * E, D]
    key: np.ndarray  # [K * E, D]
    value: np.ndarray  # [K * E, D]
    output: np.ndarray  # [D, H * E]
    query_bias: np.ndarray | None = None
    key_bias: np.ndarray | None = None
    value_bias: np.ndarray | None = None
    output_bias: np.ndarray | None = None
    query_norm: np.ndarray | None = None  # [E]
    key_norm: np.ndarray | None = None

    @property
    def head_dim(self):
        return len(self.query) // self.num_heads

    def rounded(self, dtype):
        """What the server sees of it when it is written in a type."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arrays = {name: rounded(array, _TYPES[dtype]).astype(np.float64) for name, array in fields.items() if isinstance(array, np.ndarray)}
        return dataclasses.replace(self, **arrays)


def random_layer(rng, num_heads, num_kv_heads, head_dim, embed_dim, biases=True, norms=False):
    def linear(rows, columns):
        return rng.standard_normal((rows, columns)) / np.sqrt(columns)

    query_rows, key_rows = num_heads * head_dim, num_kv_heads * head_dim
    layer = Layer(
        num_heads,
        num_kv_heads,
        linear(query_rows, embed_dim),
        linear(key_rows, embed_dim),
        linear(key_rows, embed_dim),
        linear(embed_dim, query_rows),
    )
    if biases:
        layer.query_bias, layer.key_bias, layer.value_bias, layer.output_bias = (
            rng.standard_normal(rows) for rows in (query_rows, key_rows, key_rows, embed_dim)
        )
    if norms:
        layer.query_norm, layer.key_norm = 1 + rng.standard_normal((2, head_dim)) / 4
    return layer


def _linear(name, weight, bias, separator="."):
    tensors = {f"{name}{separator}weight": weight}
    if bias is not None:
        tensors[f"{name}{separator}bias"] = bias
    return tensors


def _separate(query, key, value, output, norms=(None, None)):
    """A function (layer, prefix) -> tensors, for projections that have matrices of their own."""

    def tensors(layer, prefix=""):
        named = {
            **_linear(prefix + query, layer.query, layer.query_bias),
            **_linear(prefix + key, layer.key, layer.key_bias),
            **_linear(prefix + value, layer.value, layer.value_bias),
            **_linear(prefix + output, layer.output, layer.output_bias),
        }
        for name, norm in zip(norms, (layer.query_norm, layer.key_norm), strict=True):
            if name is not None and norm is not None:
                named[f"{prefix}{name}.weight"] = norm
        return named

    return tensors


def _one_below_the_other(layer, query, key, value):
    return np.concatenate([query, key, value])


def _head_by_head(layer, query, key, value):
    """[K, H / K + 2, E]: the query heads of a key head, that key head, its value head."""
    tail = query.shape[1:]
    parts = [array.reshape(layer.num_kv_heads, -1, layer.head_dim, *tail) for array in (query, key, value)]
    return np.concatenate(parts, axis=1).reshape(-1, *tail)


def _fused(fused, output, stack, transposed=False, separator="."):
    def tensors(layer, prefix=""):
        weight, bias = stack(layer, layer.query, layer.key, layer.value), None
        if layer.query_bias is not None:
            bias = stack(layer, layer.query_bias, layer.key_bias, layer.value_bias)
        turn = np.transpose if transposed else (lambda matrix: matrix)
        return {
            **_linear(prefix + fused, turn(weight), bias, separator),
            **_linear(prefix + output, turn(layer.output), layer.output_bias),
        }

    return tensors


# Functions (layer, prefix) -> {name: array}. The prefix is the layer's.
NAMINGS = {
    "notebook": _separate("query", "key", "value", "output"),
    "torch-mha": _fused("self_attn.in_proj", "self_attn.out_proj", _one_below_the_other, separator="_"),
    "bert": _separate("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    "vit": _separate("attention.attention.query", "attention.attention.key", "attention.attention.value", "attention.output.dense"),
    "distilbert": _separate("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
    "gpt2": _fused("attn.c_attn", "attn.c_proj", _one_below_the_other, transposed=True),
    "gpt-neox": _fused("attention.query_key_value", "attention.dense", _head_by_head),
    "llama": _separate(
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", ("self_attn.q_norm", "self_attn.k_norm")
    ),
    "opt": _separate("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),
    "phi": _separate(
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.dense", ("self_attn.q_layernorm", "self_attn.k_layernorm")
    ),
    "phi3": _fused("self_attn.qkv_proj", "self_attn.o_proj", _one_below_the_other),
    "mpt": _fused("attn.Wqkv", "attn.out_proj", _one_below_the_other),
    "modernbert": _fused("attn.Wqkv", "attn.Wo", _one_below_the_other),
    "timm": _fused("attn.qkv", "attn.proj", _one_below_the_other),
    "diffusers": _separate("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    "t5": _separate("layer.0.SelfAttention.q", "layer.0.SelfAttention.k", "layer.0.SelfAttention.v", "layer.0.SelfAttention.o"),
}


def file_bytes(tensors, dtype="F32", metadata=None):
    """The contents of a .safetensors file."""
    header, data = {}, b""
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, array in tensors.items():
        encoded = encode(np.ascontiguousarray(array), _TYPES[dtype])
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(encoded)]}
        data += encoded
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def write(path, tensors, dtype="F32", metadata=None):
    path.write_bytes(file_bytes(tensors, dtype, metadata))


def write_sharded(folder, tensors, dtype="F32", shards=2):
    """The tensors dealt out to files, and their index; returns the index's path."""
    weight_map = {}
    for i in range(shards):
        name = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        mine = dict(list(tensors.items())[i::shards])
        write(folder / name, mine, dtype)
        weight_map.update(dict.fromkeys(mine, name))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index
