"""Work that keeps a server busy, and how to see that it no longer is."""

import time

import numpy as np

from attend_testing.requests import sdpa_request
from attend_testing.server import PATIENCE, is_sanitized


def heavy_request(length, dim=16):
    """An attention of length^2 pairs."""
    tokens = np.zeros((length, dim), np.float32)
    return sdpa_request(tokens, tokens, tokens)


def endless_request():
    """Of more than 10^12 pairs: minutes of every core, so that it still runs however slow the test is, or however fast the machine.
    A server refuses it when its deadline is near; best it has none."""
    return heavy_request(1 << 20, dim=1)


def wait_until(condition, what):
    """Polls `condition`; an error when it does not come true in a time that only a hang needs."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.002)


# More than it takes to read and decode an endless request, which a sanitized server is several times slower at.
COMPUTING_SECONDS = 1.0 if is_sanitized() else 0.2


def wait_until_computing(server, cpu_seconds=COMPUTING_SECONDS):
    """Returns when the server has used so much processor time from now on. REQUIRES: a request that does not end by itself."""
    start = server.cpu_seconds()
    wait_until(lambda: server.cpu_seconds() - start >= cpu_seconds, "the server computes")


def seconds_until_idle(server):
    """How much processor time the server still used before it used next to none for half a second.

    Next to none is one tick of the clock (10 ms): on a machine that is ten times overcommitted, a thread that computes
    still gets five of them. A machine that stood still meanwhile has woken late from one of the short sleeps: then the
    half second begins anew.
    """
    start = before = server.cpu_seconds()
    end, naps = time.monotonic() + PATIENCE, 0
    while time.monotonic() < end:
        asleep = time.monotonic()
        time.sleep(0.1)
        naps += 1
        now = server.cpu_seconds()
        if now - before > 0.011 or time.monotonic() - asleep > 0.3:
            before, naps = now, 0
        elif naps == 5:
            return before - start
    raise AssertionError("the server never came to rest")
