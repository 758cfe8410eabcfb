"""Just enough HTTP/2 (RFC 9113) for a client without manners: frames from a socket, headers without compression."""

import socket
import struct

from attend_testing.server import PATIENCE

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, stream=0, payload=b"", flags=0):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _literal(text):
    return bytes((len(text),)) + text.encode()


def headers_frame(stream, path, end_stream=False, metadata=()):
    """The start of a gRPC call: literal fields that no table remembers (RFC 7541, 6.2.2). Texts of at most 126 bytes."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]
    fields += [("te", "trailers"), ("content-type", "application/grpc"), *metadata]
    block = b"".join(b"\0" + _literal(name) + _literal(value) for name, value in fields)
    return frame(HEADERS, stream, block, END_HEADERS | (END_STREAM if end_stream else 0))


def message(payload):
    """A gRPC message as it stands in DATA frames."""
    return b"\0" + struct.pack(">I", len(payload)) + payload


def data_frames(stream, payload, size=16384):
    """`payload` in DATA frames of `size` bytes."""
    return b"".join(frame(DATA, stream, payload[i : i + size]) for i in range(0, len(payload), size))


def connect(server):
    """A connection that has greeted. Reads nothing by itself."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    connection.sendall(PREFACE + frame(SETTINGS))
    return connection
