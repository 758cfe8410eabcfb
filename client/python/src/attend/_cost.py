"""What a request will cost, by its shapes: the hint of the metadata `attend-cost-flops`. A hint, not a promise.

Pairs of query and key are counted as the server's core/problem/key_visibility.cc counts them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

from attend._arrays import Tensor
from attend._options import Extent, Options, hides_the_future

# A named layer's heads, projections, mask and window are the server's: of a large request all that can be said may be too high, and
# feasible work be refused. What is small without a mask, and with the usual projections, is small.
_SMALL_FLOPS = 1e6


def _sum_of_clamped_ramp(first: int, count: int, limit: int) -> float:
    """The sum of first + i, but at least 0 and at most `limit`, over i in [0, count)."""
    ramp_begin = min(max(-first, 0), count)  # The first i above 0.
    ramp_end = min(max(limit - first, ramp_begin), count)  # The first i at the limit.
    ends = (first + ramp_begin) + (first + ramp_end - 1)
    return (ramp_end - ramp_begin) * ends / 2 + (count - ramp_end) * limit


@functools.lru_cache(maxsize=256)  # Programs send the same few shapes again and again.
def _pairs(queries: int, keys: int, offset: int, behind: int, ahead: int) -> float:
    """Of one head, whose query t has the position t + offset and sees so many keys behind and ahead of it."""
    return _sum_of_clamped_ramp(offset + ahead + 1, queries, keys) - _sum_of_clamped_ramp(offset - behind, queries, keys)


def _visible_pairs(extent: Extent, batch: int, options: Options) -> float | None:
    """The pairs that causality, window and lengths leave to one head, in all batch entries. None for lengths that the server will
    refuse."""
    if not options:
        return batch * extent.queries * extent.keys
    causal = hides_the_future(options)
    top_left = causal and options.get("causal") == "top_left"
    left, right = options.get("sliding_window_left"), options.get("sliding_window_right")
    most = extent.queries + extent.keys  # A larger window is the same window.
    behind = most if left is None else min(int(left), most)  # NumPy's integers would wrap.
    ahead = 0 if causal else most if right is None else min(int(right), most)

    def pairs(queries: int, keys: int, valid_queries: int) -> float:
        return _pairs(queries, keys, 0 if top_left else keys - valid_queries, behind, ahead)

    query_ends, key_ends = options.get("cumulative_query_lengths"), options.get("cumulative_key_lengths")
    if query_ends is not None or key_ends is not None:
        if key_ends is None and extent.self_attention:
            key_ends = query_ends
        if query_ends is None or key_ends is None or len(query_ends) != len(key_ends):
            return None
        sizes = [(t - s, v - u) for s, t, u, v in zip(query_ends, query_ends[1:], key_ends, key_ends[1:])]
        if any(t < 0 or s < 0 for t, s in sizes) or (query_ends[-1], key_ends[-1]) != (extent.queries, extent.keys):
            return None
        return sum(pairs(t, s, t) for t, s in sizes)
    lengths = options.get("valid_lengths")
    if lengths is None:
        return batch * pairs(extent.queries, extent.keys, extent.queries)
    if len(lengths) != batch or not all(0 <= s <= extent.keys for s in lengths):
        return None
    # In self-attention they are the queries' lengths too, which only moves positions.
    return sum(pairs(extent.queries, s, s if extent.self_attention else extent.queries) for s in lengths)


def _format(flops: float) -> str:
    return f"{flops:.3g}" if flops > 0 else ""


def sdpa_cost(query: Tensor, value: Tensor, extent: Extent, options: Options) -> str:
    """Empty when the shapes do not tell."""
    dims = sum(tensor.shape[-1] if tensor.shape else 1 for tensor in (query, value))
    batch = query.shape[0] if len(query.shape) == 4 else 1
    heads = math.prod(query.shape[:-1]) // max(batch * extent.queries, 1)
    pairs = _visible_pairs(extent, batch, options)
    return "" if pairs is None else _format(2 * dims * heads * pairs)


def _layerless_cost(flops: float, named: bool, embeddings: tuple[int, ...]) -> str:
    usual = flops + 4 * 2 * math.prod(embeddings) * (embeddings[-1] if embeddings else 1)
    return "" if named and usual > _SMALL_FLOPS else _format(flops)


@functools.lru_cache(maxsize=256)  # Programs send the same few shapes again and again.
def _plain_cost(embeddings: tuple[int, ...], queries: int, keys: int, named: bool) -> str:
    dims = 2 * (embeddings[-1] if embeddings else 1)
    return _layerless_cost(2.0 * math.prod(embeddings[:-2]) * dims * queries * keys, named, embeddings)


def attend_cost(
    embeddings: Tensor, layer: Mapping[str, Tensor] | None, heads_over_kv: float, named: bool, extent: Extent, options: Options
) -> str:
    """`layer` has the weights that are sent along. Of a named layer the attention alone, and empty unless that is small."""
    if not options and layer is None:
        return _plain_cost(embeddings.shape, extent.queries, extent.keys, named)
    batch = math.prod(embeddings.shape[:-2])
    pairs = _visible_pairs(extent, batch, options)
    if pairs is None:
        return ""
    if layer is None:
        dims = 2 * (embeddings.shape[-1] if embeddings.shape else 1)
        return _layerless_cost(2 * dims * pairs, named, embeddings.shape)
    rows = {name[: -len(".weight")]: w.shape[0] if w.shape else 1 for name, w in layer.items() if name.endswith(".weight")}
    sizes = {name: math.prod(layer[f"{name}.weight"].shape) for name in rows}
    tokens = {"query": extent.queries, "key": extent.keys, "value": extent.keys, "output": extent.queries}
    projections = sum(2.0 * batch * tokens[name] * size for name, size in sizes.items())
    heads_by_dims = rows["query"] + heads_over_kv * rows["value"]  # H (E + V).
    return _format(projections + 2 * heads_by_dims * pairs)
