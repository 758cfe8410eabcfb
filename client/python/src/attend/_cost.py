"""What a request will cost, by its shapes: the hint of the metadata `attend-cost-flops`. A hint, not a promise."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

from attend._arrays import Tensor
from attend._options import Extent, Options


def _visible_pairs(extent: Extent, options: Options) -> float:
    """The pairs of query and key that causality and window leave."""
    queries, keys = extent.queries, extent.keys
    per_query: float = keys
    if options.get("causal"):
        per_query = keys - queries / 2 if keys > queries else keys / 2
    left, right = options.get("sliding_window_left"), options.get("sliding_window_right")
    if left is not None and right is not None:
        per_query = min(per_query, int(left) + int(right) + 1)  # NumPy's integers would wrap.
    return queries * per_query


def _format(flops: float, options: Options) -> str:
    ragged = options.get("cumulative_query_lengths") is not None or options.get("cumulative_key_lengths") is not None
    return "" if ragged or not flops > 0 else f"{flops:.3g}"


def sdpa_cost(query: Tensor, value: Tensor, extent: Extent, options: Options) -> str:
    """Empty when the shapes do not tell."""
    dims = sum(tensor.shape[-1] if tensor.shape else 1 for tensor in (query, value))
    rows = math.prod(query.shape[:-1])  # Over batch, heads and queries.
    return _format(2 * dims * rows / max(extent.queries, 1) * _visible_pairs(extent, options), options)


@functools.lru_cache(maxsize=256)  # Programs send the same few shapes again and again.
def _plain_cost(embeddings: tuple[int, ...], queries: int, keys: int) -> str:
    dims = 2 * (embeddings[-1] if embeddings else 1)
    return _format(2.0 * math.prod(embeddings[:-2]) * dims * queries * keys, {})


def attend_cost(embeddings: Tensor, context: Tensor, layer: Mapping[str, Tensor] | None, extent: Extent, options: Options) -> str:
    """`layer` has the weights that are sent along; a named layer's projections are not counted."""
    if not options and layer is None:
        return _plain_cost(embeddings.shape, extent.queries, extent.keys)
    batch = math.prod(embeddings.shape[:-2])
    dims = 2 * (embeddings.shape[-1] if embeddings.shape else 1)  # H (E + V).
    flops = 0.0
    if layer is not None:
        sizes = {name[: -len(".weight")]: math.prod(w.shape) for name, w in layer.items() if name.endswith(".weight")}
        tokens = {"query": extent.queries, "key": extent.keys, "value": extent.keys, "output": extent.queries}
        flops = sum(2.0 * batch * tokens.get(name, 0) * size for name, size in sizes.items())
    return _format(flops + 2 * batch * dims * _visible_pairs(extent, options), options)
