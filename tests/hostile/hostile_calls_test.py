"""Callers that hold a place and do nothing with it: they lose it, and others are served meanwhile."""

import contextlib
import os
import threading
import time
import unittest

import grpc
import numpy as np

from attend_testing.admin import Scrape
from attend_testing.errors import failure_of
from attend_testing.http2 import connect, data_frames, headers_frame, message
from attend_testing.layers import Weights, header, upload
from attend_testing.load import wait_until
from attend_testing.requests import sdpa_request
from attend_testing.server import PATIENCE, Server, resident_growth
from attend_testing.stubs import health_pb2, health_pb2_grpc, pb, reflection_pb2
from attend_testing.tensors import WEIGHTS

Code = grpc.StatusCode
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
METHOD = "/attend.v1.AttentionService/ScaledDotProductAttention"


def wait_until_full_and_free_again(test, server, request, leave_unread):
    """Leaves answers to `request` unread until one that is read finds no memory, then waits until it finds some."""

    def is_served():
        try:
            server.channel.unary_unary(METHOD)(request, timeout=60)
        except grpc.RpcError as error:
            test.assertEqual(failure_of(error).reason, "MEMORY_BUDGET")
            return False
        return True

    def is_full():
        leave_unread()  # Again each time: one that met the call beside it in the budget was refused and holds nothing.
        return not is_served()

    wait_until(is_full, "the unread answers fill the budget")
    wait_until(is_served, "they are given up")
LONG = os.environ.get("ATTEND_HOSTILE") == "long"


def small_request():
    x = np.ones((5, 8), np.float32)
    return sdpa_request(x, x, x)


class Wellbehaved:
    """A client that calls again and again, beside an attack; counts what was answered and what was not."""

    def __init__(self, server):
        self._server, self._stop = server, threading.Event()
        self.served, self.failures = 0, []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def wait_until_served(self):
        """Until more than nine in ten of many calls were answered. How many fail before the server has come to end what is too much
        depends on the machine."""
        try:
            wait_until(lambda: self.served > max(50, 9 * len(self.failures)), "others are served")
        except AssertionError as error:
            raise AssertionError(f"{self.served} calls were answered, {len(self.failures)} not: {self.failures[:3]}") from error

    def _run(self):
        with self._server.new_channel() as channel:
            stub = type(self._server.stub)(channel)
            while not self._stop.is_set():
                try:
                    stub.ScaledDotProductAttention(small_request(), timeout=30)
                    self.served += 1
                except grpc.RpcError as error:
                    self.failures.append(failure_of(error))
                time.sleep(0.005)


class SilentCallsTest(unittest.TestCase):
    def open_calls(self, connection, streams=256, method=METHOD):
        connection.sendall(b"".join(headers_frame(2 * i + 1, method) for i in range(streams)))

    def test_calls_without_a_message_give_way(self):
        """More of them than the server takes: those that have waited longest end, and whoever has a message is served."""
        connections = 200 if LONG else 20
        with Server("--max-calls", "1000") as server, contextlib.ExitStack() as stack:
            server.stub.ScaledDotProductAttention(small_request(), timeout=60)
            server.reset_peak_rss()
            before = server.rss_bytes()
            with Wellbehaved(server) as good:
                for _ in range(connections):
                    self.open_calls(stack.enter_context(connect(server)))
                good.wait_until_served()
            self.assertLess(server.peak_rss_bytes() - before, resident_growth(64 << 20))
            self.assertTrue(server.alive(), server.log())

    def test_a_first_message_has_a_deadline(self):
        for path in (METHOD, "/attend.v1.AttentionService/StreamAttend", "/attend.v1.LayerService/CreateLayer",
                     "/grpc.health.v1.Health/Watch", "/attend.v1.LayerService/DeleteLayer"):  # fmt: skip
            with self.subTest(path), Server("--first-message-timeout", "500ms") as server:
                call = server.channel.stream_stream(path)(iter(threading.Event().wait, True))
                with self.assertRaises(grpc.RpcError) as caught:
                    next(call)
                failure = failure_of(caught.exception)
                self.assertEqual((failure.code, failure.reason), (Code.DEADLINE_EXCEEDED, "NO_MESSAGE"), failure)
                self.assertIn("--first-message-timeout", failure.message)

    def test_streams_that_have_spoken_may_be_silent(self):
        """Longer than one that has not: which began later, and ends."""
        with Server("--first-message-timeout", "5s", "--stalled-answer-timeout", "500ms") as server:
            go_on = threading.Event()

            def requests():
                x = {"shape": [1, 1], "values": [1]}
                yield pb.StreamAttendRequest(id=1, attend={"embeddings": x})
                go_on.wait(2 * PATIENCE)
                yield pb.StreamAttendRequest(id=2, attend={"embeddings": x})

            call = server.stub.StreamAttend(requests(), timeout=3 * PATIENCE)
            self.assertEqual(next(call).id, 1)
            with self.assertRaises(grpc.RpcError) as caught:
                next(server.stub.StreamAttend(iter(threading.Event().wait, True)))
            self.assertEqual(failure_of(caught.exception).reason, "NO_MESSAGE")
            go_on.set()
            self.assertEqual([answer.id for answer in call], [2])


class HealthWatchTest(unittest.TestCase):
    def test_watches_give_way(self):
        """Everybody may watch the health, so that watching must not keep others out."""
        with Server("--max-calls", "20", "--anonymous-roles", "none") as server:
            watches = []
            for _ in range(21):
                watches.append(health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest(), timeout=60))
                self.assertEqual(next(watches[-1]).status, health_pb2.HealthCheckResponse.SERVING)
            check = health_pb2_grpc.HealthStub(server.channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
            self.assertEqual(check.status, health_pb2.HealthCheckResponse.SERVING)
            with self.assertRaises(grpc.RpcError) as caught:
                next(watches[0])
            failure = failure_of(caught.exception)
            self.assertEqual((failure.code, failure.reason), (Code.UNAVAILABLE, "TOO_MANY_CALLS"), failure)
            for watch in watches:
                watch.cancel()


class ReflectionTest(unittest.TestCase):
    def test_questions_whose_answers_nobody_takes_give_way(self):
        """Streams that have spoken, with an answer that waits for its reader: they free their place at once."""
        question = reflection_pb2.ServerReflectionRequest(file_containing_symbol="attend.v1.AttentionService")
        data = message(question.SerializeToString())
        with Server("--max-calls", "20") as server, contextlib.ExitStack() as stack:
            for _ in range(3):
                attacker = stack.enter_context(connect(server))
                attacker.sendall(b"".join(headers_frame(i, REFLECTION) + data_frames(i, data) for i in range(1, 60, 2)))
            with Wellbehaved(server) as good:
                good.wait_until_served()


class UnreadAnswersTest(unittest.TestCase):
    def test_answers_that_nobody_takes_are_cancelled_when_others_need_their_memory(self):
        tokens = 2048  # Their attention weights are 16 MiB.
        x = np.ones((tokens, 1), np.float32)
        large = sdpa_request(x, x, x, outputs=[WEIGHTS]).SerializeToString()
        flags = ("--max-memory-in-flight-bytes", "40MiB", "--stalled-answer-timeout", "6s")
        with Server(*flags) as server, contextlib.ExitStack() as stack:

            def leave_unread():
                connection = stack.enter_context(connect(server))
                connection.sendall(headers_frame(1, METHOD) + data_frames(1, message(large)))

            wait_until_full_and_free_again(self, server, large, leave_unread)

    def test_an_answer_that_is_read_slowly_arrives(self):
        """While nobody else is in need, its bytes give it time: 16 MiB at 64 KiB a second."""
        tokens = 2048
        x = np.ones((tokens, 1), np.float32)
        large = sdpa_request(x, x, x, outputs=[WEIGHTS]).SerializeToString()
        with Server("--stalled-answer-timeout", "100ms") as server, connect(server) as connection:
            connection.sendall(headers_frame(1, METHOD) + data_frames(1, message(large)))
            time.sleep(3)
            received = 0
            while received <= 1000:
                piece = connection.recv(1 << 20)
                self.assertTrue(piece, "the connection was closed")
                received += len(piece)
            time.sleep(0.5)
            connection.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                self.assertNotIn(b"\0\0\4\3\0", connection.recv(1 << 22), "RST_STREAM")


class UploadsTest(unittest.TestCase):
    def test_uploads_that_send_next_to_nothing_give_way(self):
        """Messages without bytes are no progress."""
        stop = threading.Event()
        self.addCleanup(stop.set)

        def trickle(name):
            yield header(name)
            while not stop.wait(0.5):
                yield type(header(name))()

        with Server("--max-uploads", "2", "--admin-listen", "127.0.0.1:0") as server:
            slow = [server.layers.CreateLayer.future(trickle(f"slow{i}"), timeout=2 * PATIENCE) for i in range(2)]
            wait_until(lambda: Scrape(server.admin_port).value("attend_uploads") == 2, "both have begun")
            data, end = Weights(1).file(), time.monotonic() + 60
            while True:
                try:
                    upload(server.layers, "good", data)
                    break
                except grpc.RpcError as error:
                    self.assertEqual(failure_of(error).reason, "TOO_MANY_UPLOADS")
                    self.assertLess(time.monotonic(), end, "no upload gave way")
                    time.sleep(0.2)
            wait_until(lambda: any(call.done() for call in slow), "one of them has ended")
            (ended,) = [call for call in slow if call.done()]
            self.assertEqual(failure_of(ended).reason, "UPLOAD_TOO_SLOW")


if __name__ == "__main__":
    unittest.main()
