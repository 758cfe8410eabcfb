"""One stream of requests: which of them are under way, and what their messages look like."""

from __future__ import annotations

import dataclasses
from typing import Any

from attend._errors import AttendError, error_of_status
from attend._flows import response_name
from attend._requests import Request
from attend._results import Result, read_result
from attend._wire import Message, fields_of, read


@dataclasses.dataclass(frozen=True)
class Answer:
    """What became of one request of a stream."""

    index: int
    """Which request it answers, in the order in which they were given, from 0."""
    error: AttendError | None
    """Why there is no result; None when there is one."""
    _result: Result | None = dataclasses.field(repr=False, default=None)

    @property
    def result(self) -> Result:
        """The result. Raises `error` when there is none."""
        if self._result is None:
            assert self.error is not None
            raise self.error
        return self._result


class OldServer(Exception):
    """An answer came without a receipt although its request used fields that only a newer server reads."""

    def __init__(self, fields: tuple[str, ...]):
        super().__init__(fields)
        self.fields = fields


class Conversation:
    """Not thread-safe by itself, but `ask` and `answer` may be called from one thread each."""

    def __init__(self, default_timeout: float):
        self._default_timeout = default_timeout
        self._pending: dict[int, Request] = {}
        self._count = 0

    def ask(self, request: Request) -> list[Any]:
        """The pieces of the next message."""
        if not isinstance(request, Request):
            raise TypeError(f"a stream takes requests made by attend.requests.sdpa or attend.requests.attend, not {request!r}")
        message = Message("StreamAttendRequest")
        message.number("id", self._count)
        timeout = self._default_timeout if request.timeout is None else request.timeout
        duration = Message("google.protobuf.Duration")
        seconds, nanos = divmod(max(round(timeout * 1e9), 1), 10**9)
        duration.number("seconds", seconds)
        duration.number("nanos", nanos)
        message.message("timeout", duration)
        message.message(request.stream_field, request.message)
        pieces, _ = message.pieces()
        self._pending[self._count] = request
        self._count += 1
        return pieces

    def answer(self, content: bytes) -> Answer:
        """Reads a message of the server. Raises OldServer."""
        names = {field.number: name for name, field in fields_of("StreamAttendResponse").items()}
        found: dict[str, Any] = {names[number]: value for number, value in read(memoryview(content)) if number in names}
        index = found.get("id", 0)
        request = self._pending.pop(index)
        if "status" in found:
            return Answer(index, error_of_status(bytes(found["status"])))
        timing = str(found.get("server_timing", b""), "utf-8")
        result = read_result(response_name(request.method), found[request.stream_field], request.kind, timing)
        if request.newer_fields and result.receipt is None:
            raise OldServer(request.newer_fields)
        return Answer(index, None, result)
