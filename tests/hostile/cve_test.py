"""The state that docs/threat-model.md gives to each known vulnerability of Debian's gRPC 1.51, tried on a real server."""

import contextlib
import subprocess
import tempfile
import unittest

import grpc

import attacks
from attend_testing import edge
from attend_testing.doors import Door
from attend_testing.good_client import METHOD, small_request
from attend_testing.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, frame, headers_frame, message
from attend_testing.load import wait_until
from attend_testing.server import PATIENCE, Server


def frames(connection, seconds=5.0):
    """(kind, flags, stream, payload) of each frame that arrives, until the connection is silent or closed."""
    connection.settimeout(seconds)
    data = b""
    while True:
        with contextlib.suppress(OSError):
            if piece := connection.recv(1 << 16):
                data += piece
                while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
                    size = int.from_bytes(data[:3], "big")
                    yield data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]
                    data = data[9 + size :]
                continue
        return


class CveTest(unittest.TestCase):
    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.stop)
        self.door = Door(self.server.port)

    def is_served(self):
        with self.door.channel() as channel:
            try:
                channel.unary_unary(METHOD)(small_request().SerializeToString(), timeout=5)
            except grpc.RpcError:
                return False
        return True

    def attack(self, name, seconds=2):
        attacks.ATTACKS[name](attacks.Attack(self.door, seconds))
        self.assertTrue(self.server.alive(), self.server.log())
        wait_until(self.is_served, "others are served afterwards")

    def test_2023_33953_a_header_without_end_is_present_and_ends_no_process(self):
        self.attack("hpack_string")
        self.attack("hpack_varint")

    def test_2023_44487_rapid_reset_ends_no_process(self):
        self.attack("rapid_reset")

    def test_2025_8671_resets_that_the_server_is_made_to_send_end_no_process(self):
        self.attack("made_you_reset")

    def test_2023_1428_te_and_scheme_abort_nothing(self):
        for name, value in (("te", "x"), ("te", ""), (":scheme", "ftp"), (":scheme", "")):
            with self.subTest(name=name, value=value), self.door.greet() as connection:
                with contextlib.suppress(OSError):
                    connection.sendall(headers_frame(1, METHOD, end_stream=True, metadata=((name, value),)))
                    list(frames(connection, 0.3))
                wait_until(self.is_served, "others are served")

    def test_2023_32731_the_table_of_headers_stays_in_step(self):
        """After a header that is refused, what a later one takes from the table is what was put there."""
        with self.door.greet() as connection:
            # Stream 1 puts its whole head into the table; stream 3 names it from there: indexes of the dynamic table begin at 62.
            fields = [(":method", "POST"), (":scheme", "http"), (":path", METHOD), (":authority", "x"), ("te", "trailers"),
                      ("content-type", "application/grpc"), ("x-large", "y" * 100)]  # fmt: skip
            put = b"".join(b"\x40" + bytes((len(n),)) + n.encode() + bytes((len(v),)) + v.encode() for n, v in fields)
            named = bytes(0x80 | 62 + index for index in reversed(range(len(fields))))
            body = message(small_request().SerializeToString())
            for stream, block in ((1, put), (3, named)):
                connection.sendall(frame(HEADERS, stream, block, END_HEADERS) + frame(DATA, stream, body, END_STREAM))
            answered = set()
            for kind, _, stream, _ in frames(connection, PATIENCE):
                answered |= {stream} if kind == DATA else set()
                if answered == {1, 3}:
                    break
        self.assertEqual(answered, {1, 3})

    def test_2023_32732_a_bad_binary_header_ends_its_connection_alone(self):
        with self.door.greet() as other, self.door.greet() as connection:
            connection.sendall(headers_frame(1, METHOD, metadata=(("bad-bin", "!!!"),)))
            list(frames(connection, 1))
            other.sendall(headers_frame(1, METHOD) + frame(DATA, 1, message(small_request().SerializeToString()), END_STREAM))
            self.assertTrue(any(kind == DATA for kind, *_ in frames(other, PATIENCE)), "the other is answered")
        wait_until(self.is_served, "others are served")


class TlsVersionsTest(unittest.TestCase):
    def test_old_versions_of_tls_end_at_the_handshake(self):
        with tempfile.TemporaryDirectory() as folder:
            certificates = edge.make_certificates(folder)
            with Server("--tls-cert", certificates.path("server.crt"), "--tls-key", certificates.path("server.key")) as server:
                for version, refused in (("-tls1", True), ("-tls1_1", True), ("-tls1_2", False), ("-tls1_3", False)):
                    with self.subTest(version):
                        command = ["openssl", "s_client", "-connect", server.address, version, "-cipher", "ALL:@SECLEVEL=0", "-alpn", "h2",
                                   "-CAfile", certificates.path("servers.crt")]  # fmt: skip
                        told = subprocess.run(command, input=b"", capture_output=True, timeout=PATIENCE, check=False)
                        self.assertEqual(b"Cipher is (NONE)" in told.stdout, refused, told.stdout[-500:])


if __name__ == "__main__":
    unittest.main()
