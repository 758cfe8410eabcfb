"""What the transport's flags do to a connection, frame by frame (RFC 9113): a client of a socket and little else."""

import dataclasses
import resource
import socket
import struct
import unittest

from attend_testing.server import PATIENCE, Server

SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 4, 6, 7, 8
MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE = 3, 6
NO_ERROR, ENHANCE_YOUR_CALM = 0, 11


@dataclasses.dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame_of(kind, payload):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, 0)) + bytes(4) + payload


class Connection:
    """Speaks only when told to; a socket's timeout is an error of the test."""

    def __init__(self, server):
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
        self._file = self._socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self._socket.close()

    def greet(self):
        """In one write, as in send(): a server that waits for nobody may have closed before the second."""
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame_of(SETTINGS, b""))

    def send(self, kind, payload, times=1):
        """Frames for the connection as a whole, without flags, in one write: the server may close after any of them."""
        self._socket.sendall(frame_of(kind, payload) * times)

    def frames(self):
        """What the server sends, until it closes the connection."""
        try:
            while len(header := self._file.read(9)) == 9:
                length, kind, flags, stream = struct.unpack(">IBBI", b"\0" + header)
                yield Frame(kind, flags, stream, self._file.read(length))
        except ConnectionResetError:
            pass

    def wait_for(self, kind):
        for frame in self.frames():
            if frame.kind == kind:
                return frame
        raise AssertionError(f"the connection was closed, and no frame of type {kind} before")


def settings_of(server):
    """{identifier: value} of the server's first frame."""
    with Connection(server) as connection:
        connection.greet()
        payload = connection.wait_for(SETTINGS).payload
    return dict(struct.unpack(">HI", payload[i : i + 6]) for i in range(0, len(payload), 6))


def goaway_code(connection):
    """What the server gives as its reason to end the connection."""
    return struct.unpack(">II", connection.wait_for(GOAWAY).payload[:8])[1]


class TransportTest(unittest.TestCase):
    def test_limits_are_announced(self):
        for flags, streams, header_bytes in (
            ((), 256, 16384),
            (("--max-concurrent-streams", "7", "--max-metadata-bytes", "2048"), 7, 2048),
            (("--grpc-channel-argument", "grpc.max_concurrent_streams=5"), 5, 16384),
        ):
            with self.subTest(flags), Server(*flags) as server:
                settings = settings_of(server)
                self.assertEqual(settings[MAX_CONCURRENT_STREAMS], streams)
                self.assertEqual(settings[MAX_HEADER_LIST_SIZE], header_bytes)

    def test_a_connection_is_not_held_to_http2s_first_window(self):
        """64 KiB for all its calls together, which a distant caller would wait for again and again."""
        with Server() as server, Connection(server) as connection:
            connection.greet()
            (increment,) = struct.unpack(">I", connection.wait_for(WINDOW_UPDATE).payload)
            self.assertGreater(increment, 1 << 20)

    def test_connections_are_asked_to_go_elsewhere_at_their_age(self):
        with Server("--max-connection-age", "1s") as server, Connection(server) as connection:
            connection.greet()
            self.assertEqual(goaway_code(connection), NO_ERROR)

    def test_connections_without_calls_are_closed(self):
        with Server("--max-connection-idle", "1s") as server, Connection(server) as connection:
            connection.greet()
            self.assertEqual([frame.kind for frame in connection.frames()][-1], GOAWAY)

    def test_silent_connections_are_pinged_and_closed_when_they_do_not_answer(self):
        with Server("--keepalive-time", "1s", "--keepalive-timeout", "1s") as server, Connection(server) as connection:
            connection.greet()
            self.assertEqual(connection.wait_for(PING).flags, 0, "asked, not answered")
            # And then closed. That it has our settings may come behind its question, when they came late.
            self.assertNotIn((SETTINGS, 0), [(frame.kind, frame.flags) for frame in connection.frames()])

    def test_too_many_pings_end_the_connection(self):
        with Server("--min-ping-interval", "1h") as server, Connection(server) as connection:
            connection.greet()
            connection.send(PING, bytes(8), times=10)
            self.assertEqual(goaway_code(connection), ENHANCE_YOUR_CALM)

    def test_as_many_pings_as_are_allowed_are_answered(self):
        with Server("--min-ping-interval", "0s") as server, Connection(server) as connection:
            connection.greet()
            for _ in range(10):
                connection.send(PING, bytes(8))
                self.assertEqual(next(frame.kind for frame in connection.frames() if frame.kind in (PING, GOAWAY)), PING)

    def test_a_connection_that_says_nothing_is_closed(self):
        with Server("--handshake-timeout", "1s") as server, Connection(server) as connection:
            list(connection.frames())

    def test_as_many_connections_as_the_system_lets_it_have(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # The server inherits it.
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with Server() as server:
            self.assertEqual(resource.prlimit(server.pid, resource.RLIMIT_NOFILE), (hard, hard))


if __name__ == "__main__":
    unittest.main()
