"""What a connection can do to the server below any method: floods of frames, odd headers, more connections than descriptors."""

import contextlib
import os
import resource
import socket
import struct
import threading
import time
import unittest

import grpc
import numpy as np

from attend_testing.http2 import SETTINGS, WINDOW_UPDATE, connect, frame, headers_frame
from attend_testing.load import wait_until
from attend_testing.requests import sdpa_request
from attend_testing.server import PATIENCE, Server, resident_growth

METHOD = "/attend.v1.AttentionService/ScaledDotProductAttention"
LONG = os.environ.get("ATTEND_HOSTILE") == "long"


def small_request():
    x = np.ones((5, 8), np.float32)
    return sdpa_request(x, x, x)


def is_served(server):
    """Whether a new connection is served."""
    with server.new_channel() as channel:
        try:
            type(server.stub)(channel).ScaledDotProductAttention(small_request(), timeout=1, wait_for_ready=True)
        except grpc.RpcError:
            return False
    return True


class ConnectionsTest(unittest.TestCase):
    def test_more_connections_than_descriptors(self):
        """Others are served again as soon as there are descriptors."""
        def lower():
            return resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        with Server(prepare=lower) as server:
            with contextlib.ExitStack() as stack:
                for _ in range(600):
                    stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE))
                self.assertTrue(server.alive(), server.log())
                self.assertLess(len(os.listdir(f"/proc/{server.pid}/fd")), 256)
            wait_until(lambda: is_served(server), "new connections are served")

    def test_beyond_the_cap_a_connection_is_closed_at_once(self):
        with Server("--max-connections", "3") as server, contextlib.ExitStack() as stack:
            kept = [stack.enter_context(connect(server)) for _ in range(3)]
            for connection in kept:
                self.assertTrue(connection.recv(9), "kept connections are greeted")
            extra = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE))
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(extra.recv(9), b"")
            kept.pop().close()
            wait_until(lambda: is_served(server), "its place is free")


class FramesTest(unittest.TestCase):
    def flood(self, server, payload, connections, seconds):
        """Sends `payload` again and again on each connection, which has one open call, and reads nothing."""
        end, sent = time.monotonic() + seconds, [0] * connections

        def run(index):
            with connect(server) as connection, contextlib.suppress(OSError):
                connection.sendall(headers_frame(1, METHOD))
                while (left := end - time.monotonic()) > 0:
                    connection.settimeout(left)  # A server that wants to be read first reads no more.
                    sent[index] += connection.send(payload)

        threads = [threading.Thread(target=run, args=(index,)) for index in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(sent)

    def test_window_updates_of_a_stream_end_no_process(self):
        """After 2 GiB on a connection a counter of gRPC's was negative and an assertion failed: the long form gets there."""
        flood = frame(WINDOW_UPDATE, 1, struct.pack(">I", 1)) * 20000
        with Server() as server:
            before = server.rss_bytes()
            sent = self.flood(server, flood, connections=4, seconds=60 if LONG else 2)
            print(f"{sent / 1e9:.2f} GB of frames")
            self.assertTrue(server.alive(), server.log())
            self.assertLess(server.rss_bytes() - before, resident_growth(128 << 20))
            wait_until(lambda: is_served(server), "others are served")

    def test_odd_headers_end_no_process(self):
        server = Server()
        self.addCleanup(server.stop)
        for name, values in {
            "te": ("", "gzip", "trailers, deflate", "x" * 100),
            ":scheme": ("", "ftp", "HTTP", "x" * 100),
            "grpc-timeout": ("", "x", "99999999999H", "-1S"),
            "content-type": ("", "text/html", "application/grpcx"),
            "grpc-encoding": ("", "identity,gzip", "x"),
            "authorization": ("", "Bearer", "x" * 100),
        }.items():
            for value in values:
                with self.subTest(name=name, value=value):
                    with connect(server) as connection, contextlib.suppress(OSError):
                        connection.sendall(headers_frame(1, METHOD, end_stream=True, metadata=((name, value),)))
                        connection.settimeout(0.2)
                        connection.recv(1 << 16)
                    self.assertTrue(server.alive(), server.log())
                    wait_until(lambda: is_served(server), "others are served")

    def test_settings_that_nobody_acknowledges(self):
        flood = frame(SETTINGS) * 10000
        with Server() as server:
            self.flood(server, flood, connections=2, seconds=10 if LONG else 1)
            wait_until(lambda: is_served(server), "others are served")


if __name__ == "__main__":
    unittest.main()
