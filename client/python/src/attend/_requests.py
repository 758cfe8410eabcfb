"""Requests for attention: what they look like on the wire, and how their answers are read."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from attend._arrays import Kind, Tensor, refuse_empty, to_tensor
from attend._cost import attend_cost, sdpa_cost
from attend._deadline import optional_seconds
from attend._options import Extent, Options, count, integer, integers, with_listed_lengths, write_options
from attend._protocol import LAYOUTS, OUTPUTS
from attend._wire import Message

_PROJECTIONS = ("query", "key", "value", "output")


class Request(NamedTuple):
    """One request, made by `attend.requests.sdpa` or `attend.requests.attend`, for `client.stream` and `client.estimate`.

    Refers to the arrays that it was made from: do not change them before the call.
    """

    method: str  # `Attend` or `ScaledDotProductAttention`.
    message: Message
    kind: Kind
    newer_fields: tuple[str, ...]  # Those that version 0.1 of the server ignores.
    cost: str  # For the metadata `attend-cost-flops`.
    timeout: float | None  # Seconds; None for the client's own.

    @property
    def stream_field(self) -> str:
        """The field that holds it in StreamAttendRequest and EstimateCostRequest."""
        return "attend" if self.method == "Attend" else "scaled_dot_product_attention"


def _axis(tensor: Tensor, name: str, axis: int) -> int:
    """Axis `axis`, counted from the end; 1 when there is none, which the server will complain about."""
    return tensor.shape[axis] if len(tensor.shape) >= -axis else 1


def _write_common(message: Message, options: Options, type_name: str, extent: Extent, outputs: Sequence[str]) -> list[str]:
    newer: list[str] = []
    if options:
        option_message, newer = write_options(options, type_name, extent)
        message.message("options", option_message)
    wanted = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    if not wanted and options.get("top_k") is None:
        raise ValueError("outputs is empty: nothing would be returned")
    message.raw("outputs", _output_numbers(wanted if options.get("top_k") is None else (*wanted, "top_attention_weights")))
    return newer


@functools.lru_cache(maxsize=64)
def _output_numbers(outputs: tuple[str, ...]) -> bytes:
    unknown = [output for output in outputs if output not in OUTPUTS]
    if unknown:
        raise ValueError(f"there is no output {unknown[0]!r}; there are {', '.join(OUTPUTS)}")
    return bytes(OUTPUTS[output] for output in outputs)  # Numbers below 128 are bytes on the wire.


def make_sdpa(
    query: Any, key: Any, value: Any, outputs: Sequence[str], layout: str, partials: Any, timeout: float | None, options: Options
) -> Request:
    timeout, options = optional_seconds(timeout), with_listed_lengths(options)
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}; expected 'bhte' (heads before tokens) or 'bthe' (tokens before heads)")
    message = Message("ScaledDotProductAttentionRequest")
    inputs = [to_tensor(array, name) for name, array in (("query", query), ("key", key), ("value", value))]
    for name, tensor in zip(("query", "key", "value"), inputs):
        message.tensor(name, tensor)
    tokens = -3 if layout == "bthe" and len(inputs[0].shape) > 2 else -2
    extent = Extent(_axis(inputs[0], "query", tokens), _axis(inputs[1], "key", tokens), False)
    newer = _write_common(message, options, inputs[0].type, extent, outputs)
    if partials is not None:
        output, log_sum_exp = partials
        parts = Message("PartialAttention")
        parts.tensor("output", to_tensor(output, "partials.output"))
        parts.tensor("log_sum_exp", to_tensor(log_sum_exp, "partials.log_sum_exp"))
        message.message("partials", parts)
    if layout != "bhte":
        message.number("layout", LAYOUTS[layout])
        newer.append("layout")
    return Request(
        "ScaledDotProductAttention", message, Kind.of(inputs[0]), tuple(newer), sdpa_cost(inputs[0], inputs[2], extent, options), timeout
    )


def _layer_tensors(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """`weights` as torch's state_dict of the teaching notebook names them: `query.weight`, `query.bias`, ... None is none."""
    known = {f"{projection}.{part}" for projection in _PROJECTIONS for part in ("weight", "bias")}
    if unknown := sorted(set(weights) - known, key=repr):
        raise ValueError(f"the layer's weight {unknown[0]!r} is none of {', '.join(sorted(known))}")
    tensors = {name: to_tensor(array, f"layer[{name}]") for name, array in weights.items() if array is not None}
    for projection in _PROJECTIONS:
        if f"{projection}.weight" in tensors:
            continue
        if projection != "output":
            raise ValueError(f"the layer has no {projection}.weight")
        if "output.bias" in tensors:
            raise ValueError("the layer has an output.bias and no output.weight, without which it would not be added")
    return tensors


def _write_layer(message: Message, tensors: Mapping[str, Tensor], num_heads: int, num_kv_heads: int | None) -> float:
    """Returns how many query heads a key head has."""
    layer = Message("AttentionLayer")
    for projection in _PROJECTIONS:
        if f"{projection}.weight" not in tensors:
            continue
        linear = Message("Linear")
        for part in ("weight", "bias"):
            if (tensor := tensors.get(f"{projection}.{part}")) is not None:
                linear.tensor(part, tensor)
        layer.message(f"{projection}_projection", linear)
    heads = kv_heads = count("num_heads", num_heads)
    layer.number("num_heads", heads)
    if num_kv_heads is not None:
        kv_heads = count("num_kv_heads", num_kv_heads)
        layer.number("num_kv_heads", kv_heads)
    message.message("layer", layer)
    return heads / kv_heads


def _write_named_layer(message: Message, name: str, etag: str | None, offset: int | Sequence[int] | None) -> list[str]:
    newer = []
    message.raw("layer_name", name.encode())
    if etag is not None:
        message.raw("layer_etag", etag.encode())
        newer.append("layer_etag")
    if getattr(offset, "ndim", 0) or isinstance(offset, Sequence):
        message.numbers("position_offsets", integers("position_offset", offset), "position_offset")
        newer.append("position_offset for each batch entry")
    elif offset is not None:
        message.number("position_offset", integer("position_offset", offset))
    return newer


def make_attend(
    embeddings: Any, context: Any, layer: Any, num_heads: int | None, num_kv_heads: int | None, layer_etag: str | None,
    position_offset: int | Sequence[int] | None, outputs: Sequence[str], timeout: float | None, options: Options,
) -> Request:  # fmt: skip
    timeout, options = optional_seconds(timeout), with_listed_lengths(options)
    refuse_empty(layer, "layer")
    refuse_empty(layer_etag, "layer_etag")
    message, newer = Message("AttendRequest"), []
    tokens = to_tensor(embeddings, "embeddings")
    message.tensor("embeddings", tokens)
    looked_at = tokens if context is None else to_tensor(context, "context")
    if context is not None:
        message.tensor("context", looked_at)
    named = isinstance(layer, str)
    weights = None if named or layer is None else _layer_tensors(layer)
    heads_over_kv = 1.0
    if named:
        newer += _write_named_layer(message, layer, layer_etag, position_offset)
    elif weights is not None:
        heads_over_kv = _write_layer(message, weights, 1 if num_heads is None else num_heads, num_kv_heads)
    if not named and (layer_etag is not None or position_offset is not None):
        raise ValueError("layer_etag and position_offset go with a layer that is given by its name")
    if (named or layer is None) and (num_heads is not None or num_kv_heads is not None):
        raise ValueError("num_heads and num_kv_heads go with a layer that is given by its weights")
    extent = Extent(_axis(tokens, "embeddings", -2), _axis(looked_at, "context", -2), context is None)
    newer += _write_common(message, options, tokens.type, extent, outputs)
    cost = attend_cost(tokens, weights, heads_over_kv, named, extent, options)
    return Request("Attend", message, Kind.of(tokens), tuple(newer), cost, timeout)
