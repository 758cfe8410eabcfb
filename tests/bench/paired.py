"""The ratio of two times that were measured in pairs, with its confidence interval.

Times are positive and their errors multiply (a busy machine makes both of a pair longer by some factor), so the pairs'
log-ratios are averaged: the ratio is their geometric mean, the interval Student's t interval of the mean, taken back
from logarithms. Pairs are taken as independent of each other.
"""

import functools
import math
import statistics


def _density(x, degrees):
    scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
    return math.exp(scale - (degrees + 1) / 2 * math.log1p(x * x / degrees))


def student_probability(x, degrees):
    """P(-x < T < x) for x >= 0, by Simpson's rule: errors below 1e-8 for x up to 1000."""
    # With x = sinh(u) the heavy tail of few degrees of freedom needs no more steps than the middle.
    end, steps = math.asinh(x), 400
    width = end / steps
    values = [_density(math.sinh(i * width), degrees) * math.cosh(i * width) for i in range(steps + 1)]
    return 2 * width / 3 * (values[0] + values[-1] + 4 * sum(values[1:-1:2]) + 2 * sum(values[2:-1:2]))


@functools.lru_cache
def student_quantile(confidence, degrees):
    """The x with P(-x < T < x) = confidence, by bisection; confidence in (0, 0.999], degrees >= 1."""
    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_probability(middle, degrees) < confidence else (low, middle)
    return (low + high) / 2


def ratio_interval(base_times, new_times, confidence=0.95):
    """(ratio, lower, upper) of base time / new time: above 1, new is faster. Pair i is (base_times[i], new_times[i])."""
    if len(base_times) != len(new_times) or len(base_times) < 2:
        raise ValueError(f"needs at least two pairs of times: {len(base_times)} and {len(new_times)} were given")
    logs = [math.log(base / new) for base, new in zip(base_times, new_times, strict=True)]
    mean = statistics.fmean(logs)
    half = student_quantile(confidence, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)
