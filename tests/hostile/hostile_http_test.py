"""What a connection can do to the HTTP door: nothing to the process, little to its memory, nothing to callers of gRPC."""

import contextlib
import os
import resource
import socket
import threading
import time
import unittest

import numpy as np

from attend_testing.admin import Scrape
from attend_testing.http_door import ATTENTION, FLAGS, JSON, PROTO, Door
from attend_testing.load import wait_until
from attend_testing.requests import sdpa_request
from attend_testing.server import PATIENCE, Server, resident_growth
from attend_testing.tensors import WEIGHTS
from hostile_calls_test import Wellbehaved, wait_until_full_and_free_again

LONG = os.environ.get("ATTEND_HOSTILE") == "long"
SECONDS = 20 if LONG else 1.5
POST = f"POST {ATTENTION}Attend HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
CHUNKED = (POST + JSON + "\r\nTransfer-Encoding: chunked\r\n\r\n").encode()
SMALL = b'{"embeddings": {"shape": [2, 2], "values": [1, 0, 0, 1]}}'


def raise_descriptors(wanted):
    """Whether this process, and with it a server that it starts, may have so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return False
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True


class Attack:
    """Threads that send what `make(i)` yields over connections, each its own, again and again for SECONDS."""

    def __init__(self, port, connections, make, patience=5, until=None):
        """`patience`: for an answer, in seconds. `until`: the beginning of an answer without which it goes on for longer."""
        self._port, self._make, self._patience, self._until = port, make, patience, until
        self._end, self.answers = None, []
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(connections)]

    def __enter__(self):
        self._end = time.monotonic() + SECONDS
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        for thread in self._threads:
            thread.join()

    def _is_over(self):
        late = time.monotonic() - self._end
        return late > (0 if self._until is None or self._until in self.answers else PATIENCE)

    def _run(self, index):
        while not self._is_over():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), PATIENCE) as raw:
                with contextlib.suppress(OSError):  # Who is refused may be cut off, with an answer to read.
                    for count, piece in enumerate(self._make(index)):
                        if count > 1 and self._is_over():
                            return
                        raw.sendall(piece)
                raw.settimeout(self._patience)
                self.answers.append(raw.recv(4096)[:12])


class HostileHttpTest(unittest.TestCase):
    @contextlib.contextmanager
    def attacked(self, *flags, megabytes=64):
        """A server, and callers of gRPC who hardly notice; memory grows by less than `megabytes`."""
        with Server(*FLAGS, *flags) as server:
            with Door(server.http_port) as door:
                self.assertEqual(door.post("Attend", SMALL).status, 200)
            server.reset_peak_rss()
            before = server.rss_bytes()
            with Wellbehaved(server) as good:
                wait_until(lambda: good.served > 5, "others are served before")
                yield server
                served = good.served
                wait_until(lambda: good.served > served + 5, "others are served after")
            self.assertTrue(server.alive(), server.log())
            self.assertGreaterEqual(good.served, 19 * len(good.failures), good.failures[:3])
            grown = server.peak_rss_bytes() - before
            others = f"{good.served} calls of others served, {len(good.failures)} not"
            print(f"{self._testMethodName}: +{grown / (1 << 20):.0f} MiB; {others}", flush=True)
            self.assertLess(grown, resident_growth(megabytes << 20))
            with Door(server.http_port) as door:
                self.assertEqual(door.post("Attend", SMALL).status, 200, "the door goes on")

    def flood(self, make, connections=16, until=None, **bounds):
        with self.attacked(**bounds) as server, Attack(server.http_port, connections, make, until=until) as attack:
            pass
        return attack.answers

    def test_ten_thousand_idle_connections(self):
        """Those that have waited longest give way, so that a new one is served at once."""
        connections = 10_000
        if not raise_descriptors(connections + 1000):
            self.skipTest("this system gives a process too few descriptors")
        with self.attacked() as server, contextlib.ExitStack() as stack:
            for _ in range(connections):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), PATIENCE))
            with Door(server.http_port) as door:
                self.assertEqual(door.post("Attend", SMALL).status, 200)
            self.assertLess(len(os.listdir(f"/proc/{server.pid}/fd")), 4096 + 200)

    def test_connections_that_stay_after_a_long_body(self):
        """The buffers that bodies were read with are not kept: 64 KiB for each connection otherwise."""
        connections = 1000
        if not raise_descriptors(2 * connections):
            self.skipTest("this system gives a process too few descriptors")
        with self.attacked(megabytes=32) as server, contextlib.ExitStack() as stack:
            for _ in range(connections):
                door = stack.enter_context(Door(server.http_port))
                self.assertEqual(door.post("Attend", SMALL + b" " * 200_000).status, 200)

    def test_slow_headers(self):
        def make(_):
            for byte in (POST + JSON + "\r\nX: " + "x" * 4000).encode():
                yield bytes([byte])
                time.sleep(0.02)
        self.flood(make, connections=200)

    def test_endless_headers(self):
        def make(_):
            yield (POST + JSON + "\r\n").encode()
            for _ in range(100_000):
                yield b"X-Filler: " + b"x" * 1000 + b"\r\n"
        for answer in self.flood(make):
            self.assertIn(answer, (b"HTTP/1.1 431", b""))

    def test_slow_bodies(self):
        """Each sends a part of what it claims, and then waits."""
        def make(_):
            yield (POST + JSON + f"\r\nContent-Length: {16 << 20}\r\n\r\n").encode() + b" " * 10_000
            time.sleep(SECONDS)
        self.flood(make, connections=300)

    def test_slow_bodies_that_are_large_take_a_part_of_the_budget_alone(self):
        """Beyond a quarter of --max-memory-in-flight-bytes they are refused, and callers of gRPC have the rest."""
        def make(_):
            yield (POST + PROTO + f"\r\nContent-Length: {16 << 20}\r\n\r\n").encode()
            for _ in range(15):
                yield b"\0" * (1 << 20)
        attacked = self.attacked("--max-memory-in-flight-bytes", "160MiB", megabytes=64)
        with attacked as server, Attack(server.http_port, 16, make, until=b"HTTP/1.1 503") as attack:
            pass
        self.assertIn(b"HTTP/1.1 503", attack.answers)

    def test_chunks_of_a_byte(self):
        def make(_):
            yield CHUNKED
            for _ in range(10_000):
                yield b"1\r\n \r\n" * 1000
        self.assertLessEqual(set(self.flood(make)), {b"HTTP/1.1 400", b"HTTP/1.1 429", b""})

    def test_chunks_with_long_extensions_and_trailers(self):
        def make(index):
            yield CHUNKED
            for _ in range(10_000):
                yield b"1;" + b"x" * 900 + b"\r\n \r\n" if index % 2 else b"0\r\n" + b"X: y\r\n" * 1000
        self.assertLessEqual(set(self.flood(make)), {b"HTTP/1.1 400", b""})

    def test_claims_of_four_gibibytes(self):
        claims = [
            (POST + PROTO + f"\r\nContent-Length: {4 << 30}\r\n\r\n").encode(),
            (POST + JSON + "\r\nContent-Length: 99999999999999999999999\r\n\r\n").encode(),
            CHUNKED + b"FFFFFFFF\r\n" + b"x" * 100,
            CHUNKED + b"FFFFFFFFF\r\n",
            (POST + JSON + "\r\nContent-Length: 10\r\nContent-Length: 20\r\n\r\n").encode(),
        ]
        answers = self.flood(lambda i: [claims[i % len(claims)]], connections=20, until=b"HTTP/1.1 429", megabytes=16)
        self.assertLessEqual(set(answers), {b"HTTP/1.1 429", b"HTTP/1.1 400", b""})
        self.assertIn(b"HTTP/1.1 429", answers)

    def test_json_that_grows(self):
        """Two characters become four bytes; and all of it at once, from several callers. The shape is wrong: nothing computes.

        A request takes twice its JSON once it is read, and its JSON before; two threads read at a time.
        """
        count = 4_000_000
        body = b'{"embeddings": {"shape": [%d, 2], "values": [' % count + b"1," * (count - 1) + b"1]}}"
        head = (POST + JSON + f"\r\nContent-Length: {len(body)}\r\n\r\n").encode()
        attacked = self.attacked("--threads", "2")
        with attacked as server, Attack(server.http_port, 4, lambda _: [head, body], PATIENCE, until=b"HTTP/1.1 400") as attack:
            pass
        self.assertIn(b"HTTP/1.1 400", attack.answers)

    def test_answers_that_nobody_reads(self):
        """They wait as numbers and not as text, and are dropped after --stalled-answer-timeout; each is larger than what the
        system buffers."""
        request = b'{"embeddings": {"shape": [1024, 8], "values": [%s]}, "outputs": ["OUTPUT_KIND_ATTENTION_WEIGHTS"]}'
        body = request % b",".join([b"0.3"] * 8192)
        message = (POST + JSON + f"\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body
        flags = ("--admin-listen", "127.0.0.1:0", "--stalled-answer-timeout", "500ms", "--min-transfer-rate", "1GiB")
        with self.attacked(*flags) as server, contextlib.ExitStack() as stack:
            def connections():
                return Scrape(server.admin_port).value("attend_connections", door="http")
            def begun():
                return Scrape(server.admin_port).sum("grpc_server_started_total", grpc_method="Attend")
            before = begun()
            for _ in range(6):
                raw = stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), PATIENCE))
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                raw.sendall(message)
            wait_until(lambda: begun() == before + 6, "all have begun")
            wait_until(lambda: connections() == 0, "all are closed")
            wait_until(lambda: Scrape(server.admin_port).value("attend_memory_bytes", user="requests") == 0, "memory is given back")

    def test_answers_that_nobody_reads_end_when_others_need_their_memory(self):
        """At the least rate their bytes would have minutes, which is longer than this test waits."""
        tokens = 2048  # Their attention weights are 16 MiB.
        x = np.ones((tokens, 1), np.float32)
        large = sdpa_request(x, x, x, outputs=[WEIGHTS]).SerializeToString()
        head = f"POST {ATTENTION}ScaledDotProductAttention HTTP/1.1\r\nHost: localhost\r\nContent-Type: {PROTO}\r\n"
        message = (head + f"Content-Length: {len(large)}\r\n\r\n").encode() + large
        flags = ("--max-memory-in-flight-bytes", "40MiB", "--stalled-answer-timeout", "6s")
        with Server(*FLAGS, *flags) as server, contextlib.ExitStack() as stack:
            def leave_unread():
                raw = stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), PATIENCE))
                raw.sendall(message)
            wait_until_full_and_free_again(self, server, large, leave_unread)


if __name__ == "__main__":
    unittest.main()
