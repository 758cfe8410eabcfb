"""How far a float32 result may be from the float64 oracle's. u = 2^-24 is half a unit in the last place of 1."""

import numpy as np

from attend_testing import oracle

U = 2.0**-24

# The contract for FLOAT64, relative to max|value|, and what is left of it where sums of products are returned as such.
DOUBLE = 1e-12

# Attention weights are attention whose values are the rows of the identity; see attention().
WEIGHTS = 3e-6
LOG_SUM_EXP = 1e-5


def attention(value):
    """The contract of attention_service.proto: 2e-6 * max|value| + 1e-6."""
    return 2e-6 * np.abs(value).max() + 1e-6


def projection(merged, weight, bias, carried):
    """Per element of y = W a + c, where each a_j carries an error of at most `carried`.

    The carried error arrives as sum_j |W_ij| carried; the n fused multiply-adds of the projection itself round to
    n u sum_j |W_ij| |a_j|.
    """
    bias = None if bias is None else np.abs(bias)
    arrives = oracle.project(np.full(merged.shape, carried), np.abs(weight))
    return arrives + weight.shape[1] * U * oracle.project(np.abs(merged), np.abs(weight), bias)


def scores(query, key, options):
    """Of any score: E + 8 roundings of numbers no larger than what is added up on the way."""
    dim = query.shape[-1]
    scale = 1 / np.sqrt(dim) if options.scale is None else abs(options.scale)
    sizes = scale * np.abs(query).max() * np.abs(key).max() * dim
    if options.softcap is not None:
        sizes += options.softcap
    if options.bias is not None:
        sizes += np.abs(options.bias[np.isfinite(options.bias)]).max(initial=0)
    if options.alibi_slopes is not None:
        sizes += np.abs(options.alibi_slopes).max() * (query.shape[-2] + key.shape[-2])
    return (dim + 8) * U * sizes
