"""Errors: what the server or gRPC said, as exceptions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from attend._protocol import message_class

_STATUS = message_class("google.rpc.Status")
_DETAILS = {name: message_class(name) for name in ("google.rpc.ErrorInfo", "google.rpc.BadRequest", "google.rpc.RetryInfo")}
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Violation(NamedTuple):
    """One thing that is wrong with a request."""

    field: str  # Its path in the protocol's message, for example `query.shape[2]`; empty for the message as a whole.
    description: str


class AttendError(Exception):
    """A call that failed. The subclasses below name the common reasons.

    code: gRPC's status code, for example `grpc.StatusCode.INVALID_ARGUMENT`.
    message: the server's sentence, or gRPC's when no server answered.
    reason: the constant that a program may compare, for example `QUEUE_FULL` (docs/protocol.md lists all); empty when no attend
        server said it.
    violations: what is wrong with the request, field by field; empty for errors of other kinds.
    metadata: further named values, for example `flag` -> `--max-request-bytes`.
    retry_after: the seconds after which the server asks to try again; None when it does not.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ):
        super().__init__(f"{code.name}: {message}")
        self.code, self.message, self.reason = code, message, reason
        self.violations, self.metadata, self.retry_after = list(violations), dict(metadata or {}), retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies, and errors of other processes, are made without __init__: its arguments are not those of Exception."""
        return _remade, (type(self), self.args), self.__dict__

    @property
    def field(self) -> str:
        """The path of the first field that is wrong, for example `query.shape[2]`; empty when no field is to blame."""
        return self.violations[0].field if self.violations else ""


def _remade(kind: type[AttendError], args: tuple[Any, ...]) -> AttendError:
    error = kind.__new__(kind)
    error.args = args
    return error


class InvalidArgumentError(AttendError, ValueError):
    """INVALID_ARGUMENT: the request is wrong; `field` and `violations` say where."""


class NotFoundError(AttendError, LookupError):
    """NOT_FOUND: for example a layer that the server does not have."""


class AlreadyExistsError(AttendError):
    """ALREADY_EXISTS: a layer of this name is there."""


class AbortedError(AttendError):
    """ABORTED: another version of the layer is there than the `etag` says."""


class FailedPreconditionError(AttendError):
    """FAILED_PRECONDITION: for example a layer that belongs to the server's configuration."""


class ResourceExhaustedError(AttendError):
    """RESOURCE_EXHAUSTED: larger than this server's limits; trying again helps only if `retry_after` is given."""


class UnavailableError(AttendError, ConnectionError):
    """UNAVAILABLE: no server answered, or one that is too busy, after all attempts. `retry_after` says when to return."""


class DeadlineExceededError(AttendError, TimeoutError):
    """DEADLINE_EXCEEDED: not done within `timeout`."""


class AuthenticationError(AttendError, PermissionError):
    """UNAUTHENTICATED or PERMISSION_DENIED: the caller's token or certificate does not allow it."""


class ServerTooOldError(AttendError):
    """The server's version does not know a field of the request and would have ignored it, with another result than the one
    that was asked for. `server_version` names it, empty when it did not answer in time; `fields` is what it does not know."""

    def __init__(self, fields: Iterable[str], server_version: str):
        self.fields, self.server_version = tuple(fields), server_version
        super().__init__(
            grpc.StatusCode.UNIMPLEMENTED,
            f"the server {'has version ' + server_version if server_version else 'is older than 0.2'}, which does not know "
            f"{', '.join(self.fields)} and would ignore it. Call a newer server, or leave that out",
            reason="SERVER_TOO_OLD",
        )


_CLASSES: dict[str, Any] = {
    "INVALID_ARGUMENT": InvalidArgumentError,
    "NOT_FOUND": NotFoundError,
    "ALREADY_EXISTS": AlreadyExistsError,
    "ABORTED": AbortedError,
    "FAILED_PRECONDITION": FailedPreconditionError,
    "RESOURCE_EXHAUSTED": ResourceExhaustedError,
    "UNAVAILABLE": UnavailableError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "UNAUTHENTICATED": AuthenticationError,
    "PERMISSION_DENIED": AuthenticationError,
}


def make_error(code: grpc.StatusCode, message: str, packed_details: Iterable[Any]) -> AttendError:
    """The exception of a status. Details of kinds that this version does not know, and those that cannot be read, are passed over."""
    given: dict[str, Any] = {}
    for packed in packed_details:
        name = packed.type_url.rsplit("/", 1)[-1]
        if name in _DETAILS:
            with contextlib.suppress(DecodeError):
                given[name] = _DETAILS[name].FromString(packed.value)
    arguments: dict[str, Any] = {}
    if info := given.get("google.rpc.ErrorInfo"):
        arguments.update(reason=info.reason, metadata=dict(info.metadata))
    if bad := given.get("google.rpc.BadRequest"):
        arguments["violations"] = [Violation(entry.field, entry.description) for entry in bad.field_violations]
    if retry := given.get("google.rpc.RetryInfo"):
        arguments["retry_after"] = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return _CLASSES.get(code.name, AttendError)(code, message, **arguments)


def error_of_status(content: bytes) -> AttendError:
    """The exception of a serialized google.rpc.Status."""
    try:
        status = _STATUS.FromString(content)
    except DecodeError:
        return AttendError(grpc.StatusCode.UNKNOWN, "the server answered with a status that cannot be read")
    return make_error(_CODES.get(status.code, grpc.StatusCode.UNKNOWN), status.message, status.details)


def error_of_call(error: Any) -> AttendError:
    """The exception of a failed call, synchronous or not."""
    details: Any = ()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            with contextlib.suppress(DecodeError):  # Whoever is between may have damaged it; code and message are gRPC's.
                details = _STATUS.FromString(value).details
    return make_error(error.code(), error.details() or "", details)
