"""Whether figures of a long run grow: resident memory, descriptors and threads of a server, sampled now and then.

A server's memory jumps when a thread meets a size for the first time, and its allocator gives memory back late. So growth is the
slope of Theil and Sen, the median of the slopes between all pairs of samples, which a few jumps do not move, over the time after
the warm-up. A leak that is larger than the tolerance moves every pair.
"""

import dataclasses
import statistics

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Sample:
    seconds: float
    rss: int  # Bytes.
    descriptors: int
    threads: int


def slope(points):
    """Of (x, y), by Theil and Sen. REQUIRES: two different x."""
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(points) for b in points[i + 1 :] if b[0] > a[0])


def growth_per_hour(samples, figure):
    """How much a figure of the samples grows in an hour."""
    return 3600 * slope([(sample.seconds, getattr(sample, figure)) for sample in samples])


def faults(samples, warm_up, max_rss_per_hour=MIB):
    """What grows, in words; empty: nothing does. REQUIRES: ten samples after `warm_up` seconds.

    Descriptors and threads come and go with clients, so that they are flat when the second half needs no more than the first.
    """
    later = [sample for sample in samples if sample.seconds >= warm_up]
    if len(later) < 10:
        raise ValueError(f"{len(later)} samples after the warm-up are too few to judge")
    found = []
    memory = growth_per_hour(later, "rss")
    if memory > max_rss_per_hour:
        found.append(f"resident memory grows by {memory / MIB:.2f} MiB an hour, more than {max_rss_per_hour / MIB:.2f}")
    half = len(later) // 2
    for figure, spare in (("descriptors", 8), ("threads", 0)):
        before, after = (statistics.median(getattr(s, figure) for s in part) for part in (later[:half], later[half:]))
        if after > before + spare:
            found.append(f"{figure} grow from {before} to {after}")
    return found
