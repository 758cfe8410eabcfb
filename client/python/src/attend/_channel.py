"""How a client reaches servers: the target, credentials, and gRPC's settings."""

from __future__ import annotations

import functools
import ipaddress
import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from attend._arrays import refuse_empty

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
    """The name in the server's certificate. Default: the target's host; of several addresses the first."""

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
    if not host or "/" in host or (":" in host and not host.startswith("[")) or not (port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"the target {endpoint!r} is not host:port, as in localhost:{DEFAULT_PORT}")
    return host.strip("[]"), port


def _numeric(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _uri(target: str) -> str:
    """gRPC's name of `target`: as it is when it is one already."""
    if target.startswith(_SCHEMES):
        return target
    addresses = [_address(endpoint.strip()) for endpoint in target.split(",")]
    numeric = [_numeric(host) for host, _ in addresses]
    if len(addresses) == 1 and numeric[0] is None:
        return f"dns:///{addresses[0][0]}:{addresses[0][1]}"
    versions = {address.version for address in numeric if address is not None}
    if None in numeric or len(versions) != 1:
        raise ValueError(f"the target {target!r} is a list, which may hold IPv4 addresses or IPv6 addresses; a name goes alone")
    hosts = [f"[{host}]:{port}" if 6 in versions else f"{host}:{port}" for host, port in addresses]
    return f"ipv{versions.pop()}:{','.join(hosts)}"


def _name_to_check(uri: str) -> str | None:
    """The first host of a list of addresses: gRPC would look for the whole list in a server's certificate. None for anything else."""
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
    """See attend.Client. Raises ValueError for a target or a token that is none, and for plaintext that nobody asked for."""
    refuse_empty(target, "target")
    uri = _uri(target or os.environ.get("ATTEND_ENDPOINTS") or f"localhost:{DEFAULT_PORT}")
    get_token = token if token is None or callable(token) else functools.partial(_checked_token, _checked_token(token))
    if watch_health is None:
        watch_health = "," in uri
    service_config = {**_SERVICE_CONFIG, **_HEALTH_CONFIG} if watch_health else _SERVICE_CONFIG
    options = (("grpc.service_config", json.dumps(service_config)), *_OPTIONS)
    if tls and credentials is not None:
        raise ValueError("tls and credentials exclude each other")
    server_name = _name_to_check(uri)
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
