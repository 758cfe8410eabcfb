"""The asynchronous client: attend.aio.Client has the methods of attend.Client, to be awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import grpc
import grpc.aio

from attend._calls import ClientCalls, LayerCalls
from attend._channel import Tls, make_channel
from attend._deadline import optional_seconds, seconds
from attend._errors import AttendError, error_of_call
from attend._flows import Call, Flow, Reply, T, refuse_closed, refuse_old_server, server_timing_of
from attend._protocol import ATTENTION
from attend._requests import Request
from attend._results import Estimate, LayerInfo, Result, ServerInfo
from attend._stream import Answer, Conversation, OldServer
from attend._wire import join

__all__ = ["Client", "Layers"]


class Layers(LayerCalls[Awaitable[LayerInfo], Awaitable[list[LayerInfo]], Awaitable[None]]):
    """The layers that a server keeps by name: `client.layers`."""


class Client(ClientCalls[Awaitable[Result], Awaitable[ServerInfo], Awaitable[Estimate]]):
    """As attend.Client, for one event loop; made within it. Cancelling the task of a call cancels the call. To make one whose target is a
    list with names blocks the event loop until they are resolved."""

    def __init__(
        self,
        target: str | None = None,
        *,
        tls: Tls | bool | None = None,
        token: str | Callable[[], str] | None = None,
        insecure: bool = False,
        credentials: grpc.ChannelCredentials | None = None,
        watch_health: bool | None = None,
        timeout: float = 60.0,
    ):
        self._setup = make_channel(target, tls, token, insecure, credentials, watch_health)
        self._timeout = seconds(timeout)
        self._channel, self._uploads = self._setup.open(grpc.aio)
        self._methods: dict[str, Any] = {}
        self.layers = Layers(self)
        self._closed = False

    def __deepcopy__(self, _: Any) -> Client:
        """A connection has no copy: copies of a module use the same one."""
        return self

    async def close(self) -> None:
        """Closes the connection; calls under way are cancelled (AttendError), and further ones raise ValueError."""
        self._closed = True
        await self._channel.close()
        await self._uploads.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _method(self, call: Call) -> Any:
        if call.method not in self._methods:
            make = self._uploads.stream_unary if call.is_upload else self._channel.unary_unary
            self._methods[call.method] = make(call.method, request_serializer=join)
        return self._methods[call.method]

    async def _call(self, call: Call, begun: float) -> Reply:
        refuse_closed(self._closed)
        metadata = self._setup.metadata() + call.metadata
        timeout = call.seconds_left(self._timeout, begun)
        under_way = self._method(call)(call.pieces, timeout=timeout, metadata=metadata)
        try:
            content = await under_way
        except grpc.RpcError as error:
            raise call.failure or error_of_call(error) from None
        except asyncio.CancelledError:  # gRPC cancels an upload whose messages raise.
            if call.failure is not None:
                raise call.failure from None
            if self._closed and not _is_cancelled():
                raise AttendError(grpc.StatusCode.CANCELLED, "the client was closed") from None
            raise
        return Reply(content, server_timing_of(await under_way.trailing_metadata()))

    async def _drive(self, flow: Flow[T], begun: float | None = None) -> T:
        begun = time.monotonic() if begun is None else begun
        try:
            call = next(flow)
            while True:
                try:
                    reply = await self._call(call, begun)
                except Exception as error:
                    call = flow.throw(error)
                else:
                    call = flow.send(reply)
        except StopIteration as stop:
            return stop.value

    async def stream(
        self, requests: Iterable[Request] | AsyncIterable[Request], *, timeout: float | None = None
    ) -> AsyncIterator[Answer]:
        """As attend.Client.stream; `requests` may be an asynchronous iterable, and is taken within the event loop."""
        refuse_closed(self._closed)
        timeout, begun = optional_seconds(timeout), time.monotonic()
        conversation = Conversation(self._timeout)
        failures: list[BaseException] = []

        async def messages() -> AsyncIterator[list[Any]]:
            try:
                async for request in _each(requests):
                    yield conversation.ask(request)
            except GeneratorExit:
                raise
            except BaseException as failure:
                failures.append(failure)
                call.cancel()

        method = self._channel.stream_stream(ATTENTION + "StreamAttend", request_serializer=join)
        call = method(messages(), timeout=timeout, metadata=self._setup.metadata())
        try:
            async for content in call:
                yield conversation.answer(content)
        except OldServer as old:
            await self._drive(refuse_old_server(old.fields, timeout), None if timeout is None else begun)
        except BaseException as error:
            if failures:
                raise failures[0] from None
            if isinstance(error, grpc.RpcError):
                raise error_of_call(error) from None
            raise
        finally:
            call.cancel()


def _is_cancelled() -> bool:
    """Whether somebody cancels this task. Before Python 3.11 it does not say."""
    task = asyncio.current_task()
    return task is not None and hasattr(task, "cancelling") and task.cancelling() > 0


async def _each(requests: Iterable[Request] | AsyncIterable[Request]) -> AsyncIterator[Request]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request
