"""Attention with NumPy, in float64 or more, written from the comments of attention_service.proto and from nothing else."""

import dataclasses
import itertools

import numpy as np


@dataclasses.dataclass
class Options:
    """AttentionOptions; `causal` is None, "bottom_right" or "top_left". Arrays as in the request."""

    scale: float | None = None
    causal: str | None = None
    left: int | None = None
    right: int | None = None
    softcap: float | None = None
    valid_lengths: list | None = None
    mask: np.ndarray | None = None
    key_mask: np.ndarray | None = None  # [S] or [B, S]
    bias: np.ndarray | None = None
    alibi_slopes: np.ndarray | None = None
    sinks: np.ndarray | None = None
    cumulative_query_lengths: list | None = None
    cumulative_key_lengths: list | None = None  # None with those of the queries: the same.
    top_k: int = 0


@dataclasses.dataclass
class Result:
    output: np.ndarray  # [B, H, T, V]
    weights: np.ndarray  # [B, H, T, S]
    log_sum_exp: np.ndarray  # [B, H, T]
    scores: np.ndarray  # [B, H, T, S]


def attend(query, key, value, options=None, self_attention=False, precision=np.float64):
    """query [B, H, T, E], key [B, K, S, E], value [B, K, S, V]; `precision` is np.float64 or np.longdouble."""
    options = options or Options()
    if options.cumulative_query_lengths is not None:
        return _attend_ragged(query, key, value, options)
    query, key, value = (np.asarray(x, precision) for x in (query, key, value))
    group = query.shape[1] // key.shape[1]
    key, value = np.repeat(key, group, axis=1), np.repeat(value, group, axis=1)
    scores = np.stack([_scores(query[b], key[b], b, options, self_attention) for b in range(len(query))])
    sinks = np.full(query.shape[1], -np.inf) if options.sinks is None else options.sinks.astype(np.float64)
    top, total = _maximum_and_sum(scores, sinks[None, :, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        # Divided by the sum: at scores of 1e38 the logarithm of the sum would be lost beside the maximum.
        weights = np.where(np.isneginf(scores), 0, np.exp(scores - top[..., None]) / total[..., None])
        log_sum_exp = top + np.log(total)
    # A key of weight 0 by exclusion contributes nothing, not 0 * NaN.
    terms = np.where(np.isneginf(scores)[..., None], 0, weights[..., None] * value[:, :, None])
    return Result(terms.sum(axis=3), weights, log_sum_exp, scores)


def _attend_ragged(query, key, value, options):
    """Every sequence by itself, put where it belongs; columns beyond its keys are those of keys that it does not see."""
    queries = options.cumulative_query_lengths
    keys = queries if options.cumulative_key_lengths is None else options.cumulative_key_lengths
    rows, columns = query.shape[:3], max(1, *np.diff(keys))
    sinks = np.full(rows[1], -np.inf) if options.sinks is None else options.sinks.astype(np.float64)
    log_sum_exp = np.broadcast_to(sinks[None, :, None], rows).copy()
    output, scores = np.zeros((*rows, value.shape[-1])), np.full((*rows, columns), -np.inf)
    whole = Result(output, np.zeros_like(scores), log_sum_exp, scores)
    for (first, last), (start, end) in zip(itertools.pairwise(queries), itertools.pairwise(keys), strict=True):
        if first == last or start == end:
            continue
        own, seen, some = slice(first, last), slice(start, end), slice(0, end - start)
        part = of_sequence(options, own, some)
        if options.key_mask is not None:
            part = dataclasses.replace(part, key_mask=options.key_mask[..., seen])
        one = attend(query[:, :, own], key[:, :, seen], value[:, :, seen], part)
        whole.output[:, :, own], whole.log_sum_exp[:, :, own] = one.output, one.log_sum_exp
        whole.weights[:, :, own, some], whole.scores[:, :, own, some] = one.weights, one.scores
    return whole


def of_sequence(options, rows, columns):
    def part(array):
        if array is None:
            return None
        array = array if array.ndim == 4 else array[None, None]
        array = array[:, :, rows] if array.shape[2] > 1 else array
        return array[..., columns] if array.shape[3] > 1 else array

    return dataclasses.replace(
        options,
        mask=part(options.mask),
        bias=part(options.bias),
        cumulative_query_lengths=None,
        cumulative_key_lengths=None,
    )


def top(weights, k):
    """(weights [.., k], keys [.., k]) of the largest weights of each row of [.., S]; see `top_attention_weights`."""
    k_here = min(k, weights.shape[-1])
    order = np.argsort(-weights, axis=-1, kind="stable")[..., :k_here]
    largest = np.take_along_axis(weights, order, axis=-1)
    pad = [(0, 0)] * (weights.ndim - 1) + [(0, k - k_here)]
    return np.pad(largest, pad), np.pad(np.where(largest > 0, order, -1), pad, constant_values=-1).astype(np.int32)


def _scores(query, key, b, options, self_attention):
    """[H, T, S] of batch entry b."""
    (heads, queries, dim), keys = query.shape, key.shape[1]
    scale = 1 / np.sqrt(query.dtype.type(dim)) if options.scale is None else options.scale
    scores = scale * np.einsum("hte,hse->hts", query, key)
    if options.softcap is not None:
        scores = options.softcap * np.tanh(scores / options.softcap)
    valid_keys = keys if not options.valid_lengths else options.valid_lengths[b]
    valid_queries = valid_keys if self_attention else queries
    offset = 0 if options.causal == "top_left" else valid_keys - valid_queries
    p, j = np.arange(queries)[:, None] + offset, np.arange(keys)[None, :]
    if options.bias is not None:
        scores = scores + _entry(options.bias, b, heads, queries, keys)
    if options.alibi_slopes is not None:
        scores = scores - options.alibi_slopes.astype(np.float64)[:, None, None] * np.abs(p - j)
    visible = np.broadcast_to(j < valid_keys, (queries, keys))
    if options.causal is not None:
        visible = visible & (j <= p)
    if options.left is not None:
        visible = visible & (p - j <= options.left)
    if options.right is not None:
        visible = visible & (j - p <= options.right)
    if options.mask is not None:
        visible = visible & _entry(options.mask, b, heads, queries, keys)
    if options.key_mask is not None:
        of_keys = np.atleast_2d(options.key_mask)
        visible = visible & of_keys[b if len(of_keys) > 1 else 0]
    return np.where(visible, scores, -np.inf)


def _entry(array, b, heads, queries, keys):
    """[H, T, S] of a mask or bias of shape [T, S] or [B, H, T, S] whose axes of size 1 repeat."""
    array = array if array.dtype == bool else array.astype(np.float64)
    if array.ndim == 4:
        array = array[b if array.shape[0] > 1 else 0]
    return np.broadcast_to(array, (heads, queries, keys))


def _maximum_and_sum(scores, sinks):
    """m and sum(exp(x - m)) over the last axis and the sink; 0 and 0 where there is neither a visible key nor a sink."""
    top = np.maximum(scores.max(axis=-1), sinks)
    top = np.where(np.isneginf(top), 0, top)
    with np.errstate(invalid="ignore"):
        return top, np.exp(scores - top[..., None]).sum(axis=-1) + np.exp(sinks - top)


def project(x, weight, bias=None):
    """x . weight^T + bias in float64."""
    y = np.asarray(x, np.float64) @ np.asarray(weight, np.float64).T
    return y if bias is None else y + bias


def split_heads(x, heads):
    """[B, T, heads * E] -> [B, heads, T, E]."""
    batch, length, width = x.shape
    return x.reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3)


def merge_heads(x):
    """[B, H, T, V] -> [B, T, H * V]."""
    batch, heads, length, dim = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, length, heads * dim)
