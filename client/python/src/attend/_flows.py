"""What each method does, as a generator of calls: it yields a Call and is sent the Reply, or has the AttendError thrown in.

The synchronous and the asynchronous client differ only in how they make the calls.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import grpc

from attend._errors import AttendError, ServerTooOldError
from attend._protocol import ATTENTION, message_class
from attend._requests import Request
from attend._results import Estimate, Limits, Result, ServerInfo, fill, read_result, type_names
from attend._wire import Message


class Call(NamedTuple):
    """A call to make."""

    method: str  # `/attend.v1.AttentionService/Attend`
    pieces: Any  # Of the request; with `is_upload`, an Upload.
    timeout: float | None = None  # Seconds, counted from the start of the flow; None for the client's own.
    extra_seconds: float = 0.0  # Added to the client's own, for the time of sending.
    metadata: tuple[tuple[str, str], ...] = ()
    is_upload: bool = False

    def seconds_left(self, default: float, begun: float) -> float:
        """`default` is the client's own timeout; the flow has begun at `begun`, a value of time.monotonic()."""
        whole = default + self.extra_seconds if self.timeout is None else self.timeout
        return max(begun + whole - time.monotonic(), 0.0)

    @property
    def failure(self) -> Exception | None:
        """What ended the request from within."""
        return self.pieces.failure if self.is_upload else None


class Upload:
    """The messages of an upload, each as its pieces. Remembers the exception that ended them: gRPC has another one, without a cause."""

    def __init__(self, messages: Iterator[list[bytes]]):
        self._messages = messages
        self.failure: Exception | None = None

    def __iter__(self) -> Upload:
        return self

    def __next__(self) -> list[bytes]:
        try:
            return next(self._messages)
        except StopIteration:
            raise
        except Exception as failure:
            self.failure = failure
            raise


class Reply(NamedTuple):
    content: bytes
    server_timing: str


T = TypeVar("T")
Flow = Generator[Call, Reply, T]


def server_timing_of(trailers: Any) -> str:
    for key, value in trailers or ():
        if key == "server-timing":
            return value
    return ""


def response_name(method: str) -> str:
    return method + "Response"


def compute(request: Request) -> Flow[Result]:
    pieces, _ = request.message.pieces()
    metadata = (("attend-cost-flops", request.cost),) if request.cost else ()
    reply = yield Call(ATTENTION + request.method, pieces, request.timeout, metadata=metadata)
    result = read_result(response_name(request.method), reply.content, request.kind, reply.server_timing)
    if request.newer_fields and result.receipt is None:
        yield from refuse_old_server(request.newer_fields, request.timeout)
    return result


def refuse_closed(closed: bool) -> None:
    if closed:
        raise ValueError("the client is closed")


def refuse_old_server(fields: Iterable[str], timeout: float | None) -> Flow[None]:
    """Raises ServerTooOldError, with the server's version if it says so within what is left of `timeout`."""
    version = ""
    with contextlib.suppress(AttendError):  # What the server has done is known without it.
        version = (yield from server_info(timeout)).version
    raise ServerTooOldError(fields, version)


def server_info(timeout: float | None = None) -> Flow[ServerInfo]:
    reply = yield Call(ATTENTION + "GetServerInfo", [], timeout)
    message = message_class("attend.v1.GetServerInfoResponse").FromString(reply.content)
    types = type_names(message.supported_data_types)
    return fill(ServerInfo, message, supported_data_types=types, limits=fill(Limits, message.limits))


def estimate(request: Request) -> Flow[Estimate]:
    message = Message("EstimateCostRequest")
    message.message(request.stream_field, request.message)
    try:
        reply = yield Call(ATTENTION + "EstimateCost", message.pieces(with_data=False)[0], request.timeout)
    except AttendError as error:
        if error.code == grpc.StatusCode.UNIMPLEMENTED:
            yield from refuse_old_server(["EstimateCost"], request.timeout)
        raise
    return fill(Estimate, message_class("attend.v1.EstimateCostResponse").FromString(reply.content))
