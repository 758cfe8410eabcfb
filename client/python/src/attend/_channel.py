"""How a client reaches servers: the target, credentials, and gRPC's settings."""

from __future__ import annotations

import functools
import ipaddress
import json
import os
import socket
from collections.abc import Callable
from typing import Any, NamedTuple, Union

import grpc

from attend._arrays import refuse_empty
from attend._errors import UnavailableError

IpAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

DEFAULT_PORT = 50051
_SCHEMES = ("unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:", "xds:", "passthrough:")

# Only UNAVAILABLE is repeated: a server says it when it has done nothing. gRPC waits as the server's
# `grpc-retry-pushback-ms` says. The tokens stop a client from multiplying the load of a server in trouble (gRFC A6).
# Uploading and deleting a layer are not repeated, and a stream is not: its requests need not be.
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [
                *({"service": "attend.v1.AttentionService", "method": method}
                  for method in ("Attend", "ScaledDotProductAttention", "EstimateCost", "GetServerInfo")),
                {"service": "attend.v1.LayerService", "method": "GetLayer"},
                {"service": "attend.v1.LayerService", "method": "ListLayers"},
            ],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}  # fmt: skip

# gRPC counts a server without this service as healthy.
_HEALTH_CONFIG = {"healthCheckConfig": {"serviceName": ""}}

_OPTIONS: tuple[tuple[str, Any], ...] = (
    # A server's operator may publish another one in DNS; this client's promise is its own.
    ("grpc.service_config_disable_resolution", 1),
    # gRPC takes 4 MiB by default, and does not repeat a request that is larger than 256 KiB.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.per_rpc_retry_buffer_size", (1 << 31) - 1),
    # Proxies of the environment are for the web.
    ("grpc.enable_http_proxy", 0),
    # Between two attempts a connection must have had the time to come back; gRPC would wait a second at first.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
    # A connection whose server has vanished fails within a minute of a call, also without a deadline.
    ("grpc.keepalive_time_ms", 40000),
    ("grpc.keepalive_timeout_ms", 20000),
)


class Tls(NamedTuple):
    """How to speak TLS. Each file is given by its path, or as the bytes of its PEM text."""

    ca: str | os.PathLike[str] | bytes | None = None
    """Whom to trust. Default: the certificate authorities that come with gRPC."""
    certificate: str | os.PathLike[str] | bytes | None = None
    """The chain that identifies this client, when the server asks for one."""
    key: str | os.PathLike[str] | bytes | None = None
    """Its private key; given exactly when `certificate` is."""
    server_name: str | None = None
    """The name in the server's certificate. Default: the target's host; of several the first."""

    def __repr__(self) -> str:
        """Without what is in PEM texts: one of them is a private key."""
        shown = {name: "<bytes>" if isinstance(value, bytes) else repr(value) for name, value in self._asdict().items()}
        return f"Tls({', '.join(f'{name}={text}' for name, text in shown.items())})"


class Channel(NamedTuple):
    """What the channels of a client are made of, and what their calls say."""

    target: str
    credentials: grpc.ChannelCredentials | None
    options: tuple[tuple[str, Any], ...]
    token: Callable[[], str] | None

    def open(self, module: Any) -> tuple[Any, Any]:
        """The channels of `module`, which is grpc or grpc.aio, for calls and for uploads. To be able to repeat a request, gRPC keeps all
        of it in memory; uploads are not repeated."""

        def channel(options: tuple[tuple[str, Any], ...]) -> Any:
            if self.credentials is None:
                return module.insecure_channel(self.target, options)
            return module.secure_channel(self.target, self.credentials, options)

        return channel(self.options), channel((*self.options, ("grpc.enable_retries", 0)))

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return () if self.token is None else (("authorization", f"Bearer {_checked_token(self.token())}"),)


def _checked_token(token: Any) -> str:
    """The token without the white space around it, as a file's last line has it. No error quotes it: gRPC's own does, and its log."""
    if not isinstance(token, str):
        raise TypeError(f"the token is of the type {type(token).__name__}; expected str")
    token = token.strip()
    refuse_empty(token, "the token")
    if not all("!" <= character <= "~" for character in token):
        raise ValueError("the token has a blank or a character that is not printable ASCII")
    return token


def _contents(file: str | os.PathLike[str] | bytes | None) -> bytes | None:
    if file is None or isinstance(file, bytes):
        return file
    with open(file, "rb") as opened:
        return opened.read()


def _address(endpoint: str) -> tuple[str, str]:
    """(host, port) of `host`, `host:port`, `[address]` or `[address]:port`."""
    host, colon, port = endpoint.rpartition(":")
    if not colon or endpoint.endswith("]"):
        host, port = endpoint, str(DEFAULT_PORT)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    wrong = set("[]/ ") & set(bare) or (":" in bare and bare == host)
    if not bare or wrong or not (port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"the target {endpoint!r} is not host:port, as in localhost:{DEFAULT_PORT}")
    return bare, port


def _numeric(host: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _addresses(host: str, port: str) -> list[tuple[IpAddress, str]]:
    """Where `host` is, which is asked now when it is a name."""
    numeric = _numeric(host)
    if numeric is not None:
        return [(numeric, port)]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UnavailableError(grpc.StatusCode.UNAVAILABLE, f"cannot resolve {host!r}: {why}") from None
    families = (socket.AF_INET, socket.AF_INET6)
    return [(ipaddress.ip_address(entry[0]), port) for family, _, _, _, entry in found if family in families]


def _uri(target: str) -> tuple[str, str | None]:
    """gRPC's name of `target`, which is as it is when it is one already; and the host to look for in a server's certificate, the first
    of a list: gRPC would look for the whole list. None where gRPC looks for the right one by itself.

    Names in a list are resolved here, once: gRPC has no target for several. UnavailableError for one that has no address."""
    if target.startswith(_SCHEMES):
        return target, _first_host(target)
    hosts = [_address(endpoint.strip()) for endpoint in target.split(",")]
    if len(hosts) == 1 and _numeric(hosts[0][0]) is None:
        return f"dns:///{hosts[0][0]}:{hosts[0][1]}", None
    addresses = [address for host, port in hosts for address in _addresses(host, port)]
    if any(address.version == 6 for address, _ in addresses):  # gRPC has no mixed list either.
        mapped = [f"[{'::ffff:' if address.version == 4 else ''}{address}]:{port}" for address, port in addresses]
        uri = f"ipv6:{','.join(mapped)}"
    else:
        uri = f"ipv4:{','.join(f'{address}:{port}' for address, port in addresses)}"
    return uri, hosts[0][0] if len(hosts) > 1 else None


def _first_host(uri: str) -> str | None:
    """That of a list of addresses; None for anything else."""
    scheme, _, rest = uri.partition(":")
    if scheme not in ("ipv4", "ipv6") or "," not in rest:
        return None
    return _address(rest.rsplit("/", 1)[-1].split(",")[0])[0]


def _is_local(uri: str) -> bool:
    """Whether what is sent there does not leave this machine."""
    if uri.startswith(("unix:", "unix-abstract:")):
        return True
    scheme, _, rest = uri.partition(":")
    if scheme not in ("dns", "ipv4", "ipv6"):
        return False
    for endpoint in rest.rsplit("/", 1)[-1].split(","):
        host = _address(endpoint)[0]
        address = _numeric(host)
        address = getattr(address, "ipv4_mapped", None) or address
        if not (address.is_loopback if address is not None else host == "localhost"):
            return False
    return True


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    for name, value in tls._asdict().items():
        refuse_empty(value, f"tls.{name}")
    if (tls.certificate is None) != (tls.key is None):
        raise ValueError("tls.certificate and tls.key go together")
    return grpc.ssl_channel_credentials(_contents(tls.ca), _contents(tls.key), _contents(tls.certificate))


def make_channel(
    target: str | None,
    tls: Tls | bool | None,
    token: str | Callable[[], str] | None,
    insecure: bool,
    credentials: grpc.ChannelCredentials | None,
    watch_health: bool | None,
) -> Channel:
    """See attend.Client. Raises ValueError for a target or a token that is none, and for plaintext that nobody asked for; TypeError for a
    token or `tls` of another type; UnavailableError for a name in a list that cannot be resolved."""
    if tls is not None and not isinstance(tls, (Tls, bool)):
        raise TypeError(
            f"tls is of the type {type(tls).__name__}; expected a bool or attend.Tls: attend.Tls(ca=...) for a private authority. "
            "gRPC's own credentials are given as `credentials`"
        )
    refuse_empty(target, "target")
    uri, server_name = _uri(target or os.environ.get("ATTEND_ENDPOINTS") or f"localhost:{DEFAULT_PORT}")
    get_token = token if token is None or callable(token) else functools.partial(_checked_token, _checked_token(token))
    if watch_health is None:
        watch_health = "," in uri
    service_config = {**_SERVICE_CONFIG, **_HEALTH_CONFIG} if watch_health else _SERVICE_CONFIG
    options = (("grpc.service_config", json.dumps(service_config)), *_OPTIONS)
    if tls and credentials is not None:
        raise ValueError("tls and credentials exclude each other")
    if tls:
        wanted = tls if isinstance(tls, Tls) else Tls()
        credentials = _credentials(wanted)
        server_name = wanted.server_name or server_name
    if credentials is not None and server_name is not None:
        options += (("grpc.ssl_target_name_override", server_name),)
    if credentials is None and not insecure and not _is_local(uri):
        sent = "the token and the data" if token is not None else "the data"
        raise ValueError(
            f"{uri} may be another machine, and without TLS {sent} would be sent as plaintext: give tls=True (or attend.Tls), or "
            "insecure=True for a network that you trust"
        )
    return Channel(uri, credentials, options, get_token)
