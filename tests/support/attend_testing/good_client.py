"""A well-behaved client, in a process of its own: small calls at fixed times whatever the server does (open loop), each with a
deadline of a second, on one connection, as hostile tests compare with.

    python3 -m attend_testing.good_client DOOR_AS_JSON RATE SECONDS        prints [[when it started, answered in time], ...]
"""

import json
import subprocess
import sys
import threading
import time

import grpc
import numpy as np

from attend_testing.doors import Door
from attend_testing.requests import sdpa_request
from attend_testing.server import PATIENCE

METHOD = "/attend.v1.AttentionService/ScaledDotProductAttention"
RATE = 200


def small_request():
    x = np.ones((5, 8), np.float32)
    return sdpa_request(x, x, x)


def run(door, rate, seconds):
    calls, lock, pending = [], threading.Lock(), threading.Semaphore(0)
    payload = small_request().SerializeToString()
    with door.channel() as channel:
        method = channel.unary_unary(METHOD)
        # The first one connects; it may take longer, and does not count.
        method(payload, timeout=PATIENCE, wait_for_ready=True)
        start = time.monotonic()

        def ended(call, when):
            with lock:
                calls.append((when, call.code() == grpc.StatusCode.OK))
            pending.release()

        total = int(rate * seconds)
        for index in range(total):
            when = start + index / rate
            time.sleep(max(0, when - time.monotonic()))
            call = method.future(payload, timeout=max(0.001, when + 1 - time.monotonic()))
            call.add_done_callback(lambda call, when=when: ended(call, when))
        for _ in range(total):
            pending.acquire()
    return sorted(calls)


class GoodClient:
    """Runs it beside the caller. REQUIRES: result() once."""

    def __init__(self, door, seconds, rate=RATE):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "attend_testing.good_client", door.to_json(), str(rate), str(seconds)], stdout=subprocess.PIPE, text=True
        )

    def result(self):
        output, _ = self._process.communicate()
        if self._process.returncode != 0:
            raise AssertionError(f"the well-behaved client ended with {self._process.returncode}")
        return json.loads(output)


def answered(calls, begin, end):
    """The part of the calls started in [begin, end) that was answered in time."""
    within = [ok for when, ok in calls if begin <= when < end]
    return sum(within) / len(within) if within else 0.0


def served_again_after(calls, moment, in_a_row=20):
    """Seconds from `moment` to the first of so many answered calls in a row; None: never."""
    later = [(when, ok) for when, ok in calls if when >= moment]
    for index in range(len(later) - in_a_row + 1):
        if all(ok for _, ok in later[index : index + in_a_row]):
            return later[index][0] - moment
    return None


if __name__ == "__main__":
    print(json.dumps(run(Door.from_json(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))))
