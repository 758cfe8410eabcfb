"""A server that has too much to do: who is refused, who is not, and that nothing is lost when clients are killed."""

import re
import subprocess
import sys
import time
import unittest

import grpc
import numpy as np

from attend_testing.errors import failure_of
from attend_testing.load import endless_request, seconds_until_idle, wait_until, wait_until_computing
from attend_testing.requests import sdpa_request
from attend_testing.server import CHANNEL_OPTIONS, TIMING, Server, ServerTestCase
from attend_testing.stubs import pb_grpc
from attend_testing.tensors import WEIGHTS

METHOD = "/attend.v1.AttentionService/ScaledDotProductAttention"
HINT = "attend-cost-flops"


def small_request():
    x = np.ones((5, 32), np.float32)
    return sdpa_request(x, x, x)


class BusyServerTest(ServerTestCase):
    """Its one compute thread is held by a request of minutes, for which DEADLINE is too near; for a machine that pauses it is not."""

    FLAGS = ("--threads", "1", "--max-queued-requests", "2")
    DEADLINE = 10  # Seconds.

    def setUp(self):
        self.heavy = [self.stub.ScaledDotProductAttention.future(endless_request())]
        wait_until_computing(self.server)

    def tearDown(self):
        for call in self.heavy:
            call.cancel()
        seconds_until_idle(self.server)  # Until the server has noticed, the next test's request would not be the one that computes.

    def refusal(self, timeout=60, hint=None, request=None):
        metadata = ((HINT, hint),) if hint else ()
        with self.assertRaises(grpc.RpcError) as caught:
            self.stub.ScaledDotProductAttention(request or small_request(), timeout=timeout, metadata=metadata)
        trailers = dict(caught.exception.trailing_metadata())
        self.assertRegex(trailers["server-timing"], TIMING)
        return failure_of(caught.exception), trailers

    def test_deadlines_that_the_queue_eats_up(self):
        failure, trailers = self.refusal(timeout=self.DEADLINE)
        self.assertEqual((failure.code, failure.reason), (grpc.StatusCode.UNAVAILABLE, "DEADLINE_UNREACHABLE"))
        self.assertGreater(int(trailers["grpc-retry-pushback-ms"]), 0)
        self.assertGreater(failure.retry_seconds, 0)

    def test_a_hint_lets_a_small_request_pass_and_a_wrong_one_gets_nothing(self):
        self.stub.ScaledDotProductAttention(small_request(), timeout=self.DEADLINE, metadata=((HINT, "1000"),))
        x = np.ones((2000, 32), np.float32)
        failure, _ = self.refusal(timeout=self.DEADLINE, hint="1000", request=sdpa_request(x, x, x))
        self.assertIn(failure.reason, ("DEADLINE_UNREACHABLE", "QUEUE_FULL"), failure)

    def test_deadlines_that_an_idle_server_could_not_meet(self):
        failure, trailers = self.refusal(timeout=self.DEADLINE, hint="9e13")
        self.assertEqual((failure.code, failure.reason), (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT"))
        self.assertNotIn("grpc-retry-pushback-ms", trailers)

    def test_the_queue_is_full(self):
        # Without deadlines: on a slow machine those before them take longer than any that one would choose.
        self.heavy += [self.stub.ScaledDotProductAttention.future(endless_request()) for _ in range(2)]
        refused = []

        def is_full():  # When both are in the queue, which nobody tells.
            refused.append(self.refusal(timeout=self.DEADLINE))
            return refused[-1][0].reason == "QUEUE_FULL"

        wait_until(is_full, "the queue is full")
        failure, trailers = refused[-1]
        self.assertEqual((failure.code, failure.reason), (grpc.StatusCode.UNAVAILABLE, "QUEUE_FULL"))
        self.assertGreater(int(trailers["grpc-retry-pushback-ms"]), 0)

    def test_hints_that_are_no_numbers_are_none(self):
        for hint in ("many", "-1", "nan", "1e999"):
            failure, _ = self.refusal(timeout=self.DEADLINE, hint=hint)
            self.assertEqual(failure.reason, "DEADLINE_UNREACHABLE", hint)


# As the first argument, followed by an address, makes this file a client that is killed.
VICTIM = "be-killed"


def upload_and_download(address):
    """16 MiB up, 64 MiB down, again and again, four at a time."""
    tokens = 4096
    x = np.ones((tokens, 1024), np.float32)
    narrow = np.ones((tokens, 1), np.float32)
    requests = [sdpa_request(x[:1], x, narrow), sdpa_request(narrow, narrow, narrow, outputs=[WEIGHTS])]
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        method = pb_grpc.AttentionServiceStub(channel).ScaledDotProductAttention
        print("ready", flush=True)
        while True:
            for call in [method.future(requests[i % 2], timeout=60) for i in range(4)]:
                call.exception()


class KilledClientsTest(unittest.TestCase):
    """As many calls released as made, and all memory given back: the server itself counts, a sanitizer looks on."""

    def test_killed_in_the_middle_of_uploads_and_downloads(self):
        with Server("--threads", "2", log_level="debug") as server:
            for i in range(12):
                with subprocess.Popen(
                    [sys.executable, __file__, VICTIM, server.address], stdout=subprocess.PIPE, text=True
                ) as victim:
                    self.assertEqual(victim.stdout.readline(), "ready\n")
                    time.sleep(0.01 * i)
                    victim.kill()
            server.stub.ScaledDotProductAttention(small_request(), timeout=60)
            server.terminate()
            self.assertEqual(server.wait(), 0, server.log())
            drained = next(line for line in server.log().splitlines() if "drained" in line)
        counts = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", drained)}
        self.assertGreater(counts["calls_created"], 12, drained)
        self.assertEqual(counts["calls_created"], counts["calls_released"], drained)
        self.assertEqual(counts["memory_in_flight_bytes"], 0, drained)
        self.assertEqual(counts["tasks_queued"], counts["tasks_started"] + counts["tasks_dropped"], drained)
        self.assertEqual(counts["tasks_started"], counts["tasks_finished"] + counts["tasks_stopped"], drained)


if __name__ == "__main__":
    if sys.argv[1:2] == [VICTIM]:
        upload_and_download(sys.argv[2])
    else:
        unittest.main()
