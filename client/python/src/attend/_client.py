"""The synchronous client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from attend._arrays import modes_of_torch
from attend._calls import ClientCalls, LayerCalls
from attend._channel import Tls, make_channel
from attend._deadline import optional_seconds, seconds
from attend._errors import error_of_call
from attend._flows import Call, Flow, Reply, T, refuse_closed, refuse_old_server, server_timing_of
from attend._protocol import ATTENTION
from attend._requests import Request
from attend._results import Estimate, LayerInfo, Result, ServerInfo
from attend._stream import Answer, Conversation, OldServer
from attend._wire import join


class Layers(LayerCalls[LayerInfo, list[LayerInfo], None]):
    """The layers that a server keeps by name: `client.layers`."""


class Client(ClientCalls[Result, ServerInfo, Estimate]):
    """A connection to one or several attend servers. Thread-safe; the connection is made by the first call.

    Every call ends at its timeout, and calls go round all addresses of the target. What computes or reads (sdpa, attend, estimate, info,
    layers.get, layers.list) and is refused as busy (UNAVAILABLE) is repeated, at most four attempts in all, when the server says.
    layers.create, layers.delete and streams are not repeated: they raise UnavailableError at the first refusal.

    target: `host:port` (without a port, 50051), `[::1]:50051`, several of these with commas between them, or any target of
        gRPC (`dns:///attend.example:50051`, `unix:/run/attend.sock`). gRPC resolves a single name again when connections break.
        Names in a list are resolved once, here, which blocks until the resolver has answered. Default: the environment's
        ATTEND_ENDPOINTS, else localhost:50051.
    tls: True, or attend.Tls for a private authority or a client certificate. Default: plaintext, which is for this machine
        alone: any other target needs `tls`, `credentials` or `insecure`.
    token: a bearer token, or a function that returns the present one; called for each call. White space around it is left out;
        it must be printable ASCII without blanks. Default: none.
    insecure: whether plaintext, token included, may be sent to other machines.
    credentials: gRPC's own channel credentials, in place of `tls`; of several hosts, the first is in each server's certificate.
    watch_health: whether a server that says NOT_SERVING, as one does that is about to end, gets no new calls; each connection then
        holds a call of Watch. Default: where the target is a list. Set it for a name with an address for each server,
        such as a headless Service of Kubernetes; not for a load balancer's name, whose one connection would have no other server
        to go to.
    timeout: seconds that a call may take in all, unless it says otherwise; above 0 and finite.

    Raises ValueError for a target, a token or a timeout that is none and for plaintext that nobody asked for, TypeError for arguments of
    other types, and UnavailableError for a name in a list that cannot be resolved.
    """

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
        self._channel, self._uploads = self._setup.open(grpc)
        self._methods: dict[str, Any] = {}
        self.layers = Layers(self)
        self._closed = False

    def __deepcopy__(self, _: Any) -> Client:
        """A connection has no copy: copies of a module use the same one."""
        return self

    def close(self) -> None:
        """Closes the connection; calls under way are cancelled, and further ones raise ValueError."""
        self._closed = True
        self._channel.close()
        self._uploads.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _method(self, call: Call) -> Any:
        if call.method not in self._methods:
            make = self._uploads.stream_unary if call.is_upload else self._channel.unary_unary
            self._methods[call.method] = make(call.method, request_serializer=join)
        return self._methods[call.method]

    def _call(self, call: Call, begun: float) -> Reply:
        refuse_closed(self._closed)
        metadata = self._setup.metadata() + call.metadata
        timeout = call.seconds_left(self._timeout, begun)
        try:
            content, done = self._method(call).with_call(call.pieces, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise call.failure or error_of_call(error) from None
        return Reply(content, server_timing_of(done.trailing_metadata()))

    def _drive(self, flow: Flow[T], begun: float | None = None) -> T:
        begun = time.monotonic() if begun is None else begun
        try:
            call = next(flow)
            while True:
                try:
                    reply = self._call(call, begun)
                except Exception as error:
                    call = flow.throw(error)
                else:
                    call = flow.send(reply)
        except StopIteration as stop:
            return stop.value

    def stream(self, requests: Iterable[Request], *, timeout: float | None = None) -> Iterator[Answer]:
        """Computes many requests over one stream, for the price of a message each; yields answers as they are done.

        requests: made by attend.requests.sdpa and attend.requests.attend. They are taken from another thread, as fast as the
            server reads them, while answers are read; there with torch's gradients and inference mode as they are here, but
            without torch.autocast. The `timeout` of each (default: the client's) is how long it may wait
            for a compute thread.
        timeout: seconds for the whole stream. Default: as long as it takes.

        A request that fails gives an answer with its error, and the others go on. What ends the stream as a whole is raised
        here, also an exception of `requests` itself. Stopping to iterate cancels what has not been answered.
        """
        refuse_closed(self._closed)
        timeout, begun = optional_seconds(timeout), time.monotonic()
        conversation = Conversation(self._timeout)
        failures: list[BaseException] = []

        torch_modes = modes_of_torch()

        def messages() -> Iterator[list[Any]]:
            try:
                each = iter(requests)
                while True:
                    with torch_modes():
                        message = conversation.ask(next(each))
                    yield message
            except (StopIteration, GeneratorExit):
                return
            except BaseException as failure:  # gRPC would only log it, or wait for ever.
                failures.append(failure)
                call.cancel()

        method = self._channel.stream_stream(ATTENTION + "StreamAttend", request_serializer=join)
        call = method(messages(), timeout=timeout, metadata=self._setup.metadata())
        try:
            for content in call:
                yield conversation.answer(content)
        except grpc.RpcError as error:
            raise failures[0] if failures else error_of_call(error) from None
        except OldServer as old:
            self._drive(refuse_old_server(old.fields, timeout), None if timeout is None else begun)
        finally:
            call.cancel()
