"""A named layer in float64 with NumPy, written from the comments of layer_service.proto and from nothing else."""

import dataclasses

import numpy as np

from attend_testing import oracle
from attend_testing.oracle import Options


@dataclasses.dataclass
class Llama3:
    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context_length: int


# As in Llama 3.1, for short texts: slow pairs, fast ones and some between.
LLAMA31 = Llama3(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context_length=64)


@dataclasses.dataclass
class Rotary:
    """RotaryEmbedding; `form` is "half" or "interleaved"."""

    form: str = "half"
    base: float = 10000.0
    dim: int | None = None
    linear_factor: float = 1.0
    llama3: Llama3 | None = None


@dataclasses.dataclass
class Norm:
    """Weights of the size of a head, or of all heads together: then a token's heads have one mean or variance."""

    weight: np.ndarray
    bias: np.ndarray | None = None
    kind: str = "rms"  # Or "layer".
    epsilon: float = 1e-6
    adds_one: bool = False


@dataclasses.dataclass
class NamedLayer:
    """Projections are (weight, bias or None) under "query", "key", "value" and maybe "output"."""

    projections: dict
    heads: int = 1
    kv_heads: int = 1
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    rotary: Rotary | None = None
    options: Options = dataclasses.field(default_factory=Options)


@dataclasses.dataclass
class Answer:
    query: np.ndarray  # [B, H, T, E], normalised and turned, as the next.
    key: np.ndarray  # [B, K, S, E]
    value: np.ndarray  # [B, K, S, V]
    result: oracle.Result
    merged: np.ndarray  # [B, T, H * V]
    output: np.ndarray  # [B, T, D_out]


def attend(layer, tokens, context=None, options=None, position_offset=0):
    """tokens [B, T, D], context [B, S, D']. `options`: the layer's own with what a request sets in their place.

    `position_offset` is one number, or one for each batch entry.
    """
    options = options or layer.options
    source = tokens if context is None else context
    query = oracle.split_heads(oracle.project(tokens, *layer.projections["query"]), layer.heads)
    key = oracle.split_heads(oracle.project(source, *layer.projections["key"]), layer.kv_heads)
    value = oracle.split_heads(oracle.project(source, *layer.projections["value"]), layer.kv_heads)
    query, key = normalise(query, layer.query_norm), normalise(key, layer.key_norm)
    if layer.rotary:
        offsets = np.broadcast_to(position_offset, len(query))
        query = np.stack(
            [turn(one, where(options, b, query, key, context is None) + offsets[b], layer.rotary) for b, one in enumerate(query)]
        )
        key = np.stack([turn(one, np.arange(key.shape[2]) + offsets[b], layer.rotary) for b, one in enumerate(key)])
    result = oracle.attend(query, key, value, options, self_attention=context is None)
    merged = oracle.merge_heads(result.output)
    output = oracle.project(merged, *layer.projections["output"]) if "output" in layer.projections else merged
    return Answer(query, key, value, result, merged, output)


def where(options, b, query, key, self_attention):
    """The positions of the queries of batch entry b among the keys; see sliding_window_left."""
    queries, keys = query.shape[2], key.shape[2]
    valid_keys = options.valid_lengths[b] if options.valid_lengths else keys
    valid_queries = valid_keys if self_attention else queries
    return np.arange(queries) + (0 if options.causal == "top_left" else valid_keys - valid_queries)


def normalise(x, norm):
    """Over each row of a head [B, H, T, E], or over a token's heads together when the weight has their size."""
    if norm is None:
        return x
    batch, heads, length, dim = x.shape
    rows = oracle.merge_heads(x) if len(norm.weight) != dim else x
    centred = rows - rows.mean(axis=-1, keepdims=True) if norm.kind == "layer" else rows
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float64(norm.epsilon))
    y = scaled * (np.float64(norm.adds_one) + norm.weight.astype(np.float64))
    y = y if norm.bias is None else y + norm.bias.astype(np.float64)
    return y.reshape(batch, length, heads, dim).transpose(0, 2, 1, 3) if len(norm.weight) != dim else y


def frequencies(rotary, head_dim):
    """By how much pair i is turned from one position to the next, [dim / 2]."""
    dim = rotary.dim or head_dim
    plain = rotary.base ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)
    if rotary.llama3 is None:
        return plain / rotary.linear_factor
    scaling, wavelength = rotary.llama3, 2 * np.pi / plain
    longest = scaling.original_context_length / scaling.low_freq_factor
    shortest = scaling.original_context_length / scaling.high_freq_factor
    share = (scaling.original_context_length / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    mixed = (1 - share) * plain / scaling.factor + share * plain
    return np.where(wavelength > longest, plain / scaling.factor, np.where(wavelength < shortest, plain, mixed))


def turn(x, positions, rotary):
    """x [.., T, E] with its pairs turned by their angle at each of `positions` [T]."""
    angles = positions[:, None].astype(np.float64) * frequencies(rotary, x.shape[-1])
    cos, sin = np.cos(angles), np.sin(angles)
    half = angles.shape[-1]
    y = np.array(x, np.float64)
    first, second = (slice(0, half), slice(half, 2 * half)) if rotary.form == "half" else (slice(0, 2 * half, 2), slice(1, 2 * half, 2))
    y[..., first] = x[..., first] * cos - x[..., second] * sin
    y[..., second] = x[..., second] * cos + x[..., first] * sin
    return y
