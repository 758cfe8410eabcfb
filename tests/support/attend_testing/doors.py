"""Where a test's calls go in: a server's own port, with or without TLS, or a proxy's. As a value that another process can have."""

import dataclasses
import json
import pathlib
import socket
import ssl

import grpc

from attend_testing.http2 import PREFACE, SETTINGS, frame
from attend_testing.server import CHANNEL_OPTIONS, PATIENCE

TLS_NAME = "localhost"


@dataclasses.dataclass(frozen=True)
class Door:
    """Of `host`. `authority` (a file) makes it speak TLS; `certificate` is the path of a pair without .crt and .key, empty for
    none. Where `source` is given, connect() comes from that address of this machine."""

    port: int
    authority: str = ""
    certificate: str = ""
    name: str = TLS_NAME
    source: str = ""
    host: str = "127.0.0.1"

    def to_json(self):
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text):
        return Door(**json.loads(text))

    def without_certificate(self):
        return dataclasses.replace(self, certificate="")

    def channel(self, *more_options):
        address = f"{self.host}:{self.port}"
        if not self.authority:
            return grpc.insecure_channel(address, options=(*CHANNEL_OPTIONS, *more_options))
        pair = [pathlib.Path(self.certificate + end).read_bytes() for end in (".key", ".crt")] if self.certificate else (None, None)
        credentials = grpc.ssl_channel_credentials(pathlib.Path(self.authority).read_bytes(), *pair)
        options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", self.name), *more_options)
        return grpc.secure_channel(address, credentials, options=options)

    def connect_tcp(self, timeout=PATIENCE):
        return socket.create_connection((self.host, self.port), timeout, (self.source, 0) if self.source else None)

    def connect(self, protocol="h2", timeout=PATIENCE):
        """A connection on which the handshake is done, and nothing has been said."""
        plain = self.connect_tcp(timeout)
        if not self.authority:
            return plain
        context = ssl.create_default_context(cafile=self.authority)
        context.set_alpn_protocols([protocol])
        if self.certificate:
            context.load_cert_chain(self.certificate + ".crt", self.certificate + ".key")
        try:
            return context.wrap_socket(plain, server_hostname=self.name)
        except OSError:
            plain.close()
            raise

    def greet(self, timeout=PATIENCE):
        """A connection that has greeted in HTTP/2. Reads nothing by itself."""
        connection = self.connect(timeout=timeout)
        connection.sendall(PREFACE + frame(SETTINGS))
        return connection
