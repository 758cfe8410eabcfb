"""Clients that send garbage, vanish, cancel or never speak harm themselves alone: the others are served, nothing leaks."""

import concurrent.futures
import contextlib
import os
import socket
import subprocess
import sys
import time
import unittest

import grpc
import numpy as np

from attend_testing.errors import call_failure, failure_of
from attend_testing.load import seconds_until_idle, wait_until
from attend_testing.requests import sdpa_request
from attend_testing.server import CHANNEL_OPTIONS, PATIENCE, Server, ServerTestCase, is_sanitized, resident_growth
from attend_testing.stubs import pb_grpc
from attend_testing.tensors import WEIGHTS, assert_same_bits, from_tensor

METHOD = "/attend.v1.AttentionService/ScaledDotProductAttention"

# What a connection may start with that is not HTTP/2, or only just.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GARBAGE = {
    "nothing": b"",
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "half a preface": PREFACE[:10],
    "zeros": bytes(100000),
    "a frame of unknown type": PREFACE + b"\x00\x00\x04\xff\x00\x00\x00\x00\x00abcd",
    "a frame of 16 MiB": PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(1000),
    "headers that do not decode": PREFACE + b"\x00\x00\x05\x01\x04\x00\x00\x00\x01" + b"\xff" * 5,
    "data without a stream": PREFACE + b"\x00\x00\x01\x00\x01\x00\x00\x00\x07x",
    "a window that overflows": PREFACE + 3 * b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\xff\xff\xff",
}


def request(tokens=5):
    x = np.random.default_rng(tokens).standard_normal((tokens, 32), dtype=np.float32)
    return sdpa_request(x, x, x)


class UnreadAnswersTest(unittest.TestCase):
    """Answers that nobody reads are bounded by --max-memory-in-flight-bytes, whoever leaves them lying."""

    ANSWER = 64 << 20
    CALLS = 12

    def test_clients_that_never_read(self):
        tokens = 4096  # Their attention weights are the 64 MiB.
        x = np.ones((tokens, 1), np.float32)
        large = sdpa_request(x, x, x, outputs=[WEIGHTS])
        with Server("--threads", "2", "--max-memory-in-flight-bytes", str(5 * self.ANSWER // 2)) as server:
            server.stub.ScaledDotProductAttention(request(), timeout=60)
            before = server.rss_bytes()
            with server.new_channel() as channel:
                # As a stream, so that gRPC asks for the message only when it is iterated over, which never happens.
                method = channel.unary_stream(METHOD, request_serializer=type(large).SerializeToString)
                calls = [method(large, timeout=300) for _ in range(self.CALLS)]
                wait_until(lambda: sum(call.done() for call in calls) == self.CALLS - 2, "all but two are refused")
                for call in calls:
                    if call.done():
                        self.check_refused(failure_of(call))
                seconds_until_idle(server)  # The two are computed, and nobody reads them.
                # What the two hold bounds the process, with as much again for inputs, scratch and the allocator.
                self.assertLess(server.rss_bytes() - before, 4 * self.ANSWER * (2 if is_sanitized() else 1))
                self.assertEqual(len(from_tensor(server.stub.ScaledDotProductAttention(request(), timeout=60).output)), 5)
                self.check_refused(call_failure(server.stub.ScaledDotProductAttention, large))
                for call in calls:
                    call.cancel()
            # The rude ones have gone: there is room again.
            wait_until(lambda: self.is_served(server, large), "the memory is given back")

    def check_refused(self, failure):
        self.assertEqual(failure.code, grpc.StatusCode.UNAVAILABLE, failure)
        self.assertEqual((failure.reason, failure.domain), ("MEMORY_BUDGET", "attend.v1"), failure)
        self.assertIn("--max-memory-in-flight-bytes", failure.message)
        self.assertGreater(failure.retry_seconds, 0)

    def is_served(self, server, large):
        try:
            server.stub.ScaledDotProductAttention(large, timeout=60)
        except grpc.RpcError as error:
            self.check_refused(failure_of(error))
            return False
        return True


# As the first argument, followed by an address, makes this file a client.
CHURN = "cancel-calls"


def cancel_calls(address, seed):
    """Forty heavy calls, each cancelled after a random while."""
    random, heavy = np.random.default_rng(seed), request(700)
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        stub = pb_grpc.AttentionServiceStub(channel)
        for _ in range(40):
            call = stub.ScaledDotProductAttention.future(heavy, timeout=60)
            time.sleep(random.random() * 0.01)
            call.cancel()


def churn(address):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for result in [pool.submit(cancel_calls, address, seed) for seed in range(8)]:
            result.result()


def descriptors(server):
    return len(os.listdir(f"/proc/{server.pid}/fd"))


class RudeClientsTest(ServerTestCase):
    FLAGS = ("--threads", "2")
    ALLOWED = resident_growth(64 << 20)

    def setUp(self):
        self.expected = from_tensor(self.stub.ScaledDotProductAttention(request(), timeout=60).output)

    def tearDown(self):
        """Whatever happened in a test, a good call is served as before."""
        self.assertTrue(self.server.alive(), self.server.log())
        answer = self.stub.ScaledDotProductAttention(request(), timeout=60)
        assert_same_bits(from_tensor(answer.output), self.expected, "a good call afterwards")

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=PATIENCE)

    def test_garbage_on_the_wire(self):
        for what, data in GARBAGE.items():
            with self.subTest(what):
                with self.connect() as connection, contextlib.suppress(OSError):
                    connection.sendall(data)
                    connection.settimeout(0.2)
                    connection.recv(1000)
                self.tearDown()

    def test_silent_connections_neither_block_nor_leak(self):
        """On a server of its own: another's may still be about to close connections of the tests before."""
        with Server(*self.FLAGS, "--handshake-timeout", "5m") as server:
            server.stub.ScaledDotProductAttention(request(), timeout=60)
            before = descriptors(server)
            with contextlib.ExitStack() as stack:
                for _ in range(200):
                    stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE))
                wait_until(lambda: descriptors(server) >= before + 200, "all are accepted")
                answer = server.stub.ScaledDotProductAttention(request(), timeout=60)
                assert_same_bits(from_tensor(answer.output), self.expected, "a good call beside them")
            wait_until(lambda: descriptors(server) <= before + 2, "all are closed again")

    def test_a_compression_bomb_is_refused_unopened(self):
        self.server.reset_peak_rss()
        before = self.server.rss_bytes()
        bomb = b"\x82\x3f\x80\x80\x80\x50" + bytes(160 << 20)  # An unknown field of 160 MiB of zeros: 160 KiB as gzip.
        with grpc.insecure_channel(
            self.server.address, options=CHANNEL_OPTIONS, compression=grpc.Compression.Gzip
        ) as channel:
            failure = call_failure(channel.unary_unary(METHOD), bomb)
        self.assertEqual(failure.code, grpc.StatusCode.UNIMPLEMENTED)
        self.assertLess(self.server.peak_rss_bytes() - before, self.ALLOWED)

    def test_a_unary_method_needs_its_one_message(self):
        method = self.server.channel.stream_unary(METHOD)
        with self.assertRaises(grpc.RpcError) as caught:
            method(iter(()), timeout=60)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_clients_that_cancel_at_any_moment(self):
        before, memory = descriptors(self.server), self.server.rss_bytes()
        # In a process of their own: a channel that is closed in the middle of cancelled calls may keep its connection for
        # as long as its process lives, and here it is the server that is asked for leaks.
        subprocess.run([sys.executable, __file__, CHURN, self.server.address], check=True, timeout=2 * PATIENCE)
        wait_until(lambda: descriptors(self.server) <= before + 2, "the connections are closed")
        self.assertLess(self.server.rss_bytes() - memory, self.ALLOWED)

    def test_deadlines_that_pass_at_any_moment(self):
        heavy, late = request(700), 0
        for step in range(100):
            try:
                self.stub.ScaledDotProductAttention(heavy, timeout=0.0001 + 0.0005 * (step % 20))
            except grpc.RpcError as error:
                self.assert_ran_out_of_time(error)
                late += 1
        self.assertGreater(late, 0, "no deadline passed")

    def assert_ran_out_of_time(self, error):
        """The deadline passed, or the server saw in advance that it would: calls given up a moment ago may still wait."""
        failure = failure_of(error)
        if failure.code == grpc.StatusCode.UNAVAILABLE:
            self.assertEqual(failure.reason, "DEADLINE_UNREACHABLE")
            self.assertIsNotNone(failure.retry_seconds)
        else:
            self.assertEqual(failure.code, grpc.StatusCode.DEADLINE_EXCEEDED)


if __name__ == "__main__":
    if sys.argv[1:2] == [CHURN]:
        churn(sys.argv[2])
    else:
        unittest.main()
