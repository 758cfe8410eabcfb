"""Work that keeps a server busy, and how to see that it no longer is."""

import time

import numpy as np

from attend_testing.requests import sdpa_request
from attend_testing.server import PATIENCE


def heavy_request(length=1 << 17, dim=16):
    """An attention of length^2 pairs: more than 10^12 operations by default, many seconds of one core."""
    tokens = np.zeros((length, dim), np.float32)
    return sdpa_request(tokens, tokens, tokens)


def wait_until(condition, what):
    """Polls `condition`; an error when it does not come true in a time that only a hang needs."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.002)


def wait_until_computing(server, cpu_seconds=0.2):
    """Returns when the server has used so much processor time from now on."""
    start = server.cpu_seconds()
    wait_until(lambda: server.cpu_seconds() - start >= cpu_seconds, "the server computes")


def seconds_until_idle(server):
    """How much processor time the server still used before it used next to none for half a second.

    Next to none is one tick of the clock (10 ms): on a machine that is ten times overcommitted, a thread that computes
    still gets five of them.
    """
    start = before = server.cpu_seconds()
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(0.5)
        now = server.cpu_seconds()
        if now - before <= 0.011:
            return before - start
        before = now
    raise AssertionError("the server never came to rest")
