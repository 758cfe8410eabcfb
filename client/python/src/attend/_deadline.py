"""How long calls may take, in seconds."""

from __future__ import annotations

import numbers

_MOST = 315_576_000_000  # 10,000 years, the largest Duration of protobuf.


def seconds(timeout: float) -> float:
    """`timeout`, checked."""
    if not isinstance(timeout, numbers.Real) or isinstance(timeout, bool):
        raise TypeError(f"timeout is {timeout!r}; expected a number of seconds")
    if not 0 < timeout <= _MOST:  # False for NaN.
        raise ValueError(f"timeout is {timeout!r}; expected seconds, more than 0 and finite")
    return float(timeout)


def optional_seconds(timeout: float | None) -> float | None:
    return None if timeout is None else seconds(timeout)
