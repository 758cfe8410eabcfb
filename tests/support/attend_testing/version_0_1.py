"""Version 0.1 of attend.v1, from its descriptors (tests/data/attend_v1_0_1.binpb): a client, and a server.

The server is today's behind a filter that drops, from requests and from answers, what version 0.1 does not know, as a server
of that version did.
"""

import concurrent.futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from attend_testing.server import SOURCE_DIR

FILE = SOURCE_DIR / "tests" / "data" / "attend_v1_0_1.binpb"
FILES = descriptor_pb2.FileDescriptorSet.FromString(FILE.read_bytes()).file


def _pool():
    pool = descriptor_pool.DescriptorPool()
    for file in FILES:
        pool.Add(file)
    return pool


POOL = _pool()
_FACTORY = message_factory.MessageFactory(POOL)


def message(name):
    """The class of a message of attend.v1, as in message("AttendRequest")."""
    return _FACTORY.GetPrototype(POOL.FindMessageTypeByName(f"attend.v1.{name}"))


def methods():
    """(path, descriptor) of every method."""
    for file in FILES:
        for service in POOL.FindFileByName(file.name).services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}", method


def _classes(method):
    return (_FACTORY.GetPrototype(method.input_type), _FACTORY.GetPrototype(method.output_type))


def _kind(method):
    """As the names of grpc's functions have it: `unary_unary`, `stream_unary`, `stream_stream`."""
    streams = {f"attend.v1.{name}Request": name for name in ("CreateLayer", "StreamAttend")}
    asks = "stream" if method.input_type.full_name in streams else "unary"
    answers = "stream" if method.output_type.full_name == "attend.v1.StreamAttendResponse" else "unary"
    return f"{asks}_{answers}"


class Client:
    """Its methods are those of the stubs: Client(channel).Attend(request, timeout=60)."""

    def __init__(self, channel):
        for path, method in methods():
            _, answer = _classes(method)
            call = getattr(channel, _kind(method))(path, lambda m: m.SerializeToString(), answer.FromString)
            setattr(self, method.name, call)


class FilterServer:
    """A server of version 0.1 in front of today's at `address`; use as a context manager. `endpoint` is its own address."""

    def __init__(self, address):
        self._channel = grpc.insecure_channel(address)
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
        handlers = {}
        for path, method in methods():
            handlers.setdefault(path.split("/")[1], {})[method.name] = self._handler(path, method)
        for service, of_service in handlers.items():
            self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, of_service)])
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.stop(None).wait()
        self._channel.close()

    def _handler(self, path, method):
        kind, (request, response) = _kind(method), _classes(method)

        def drop(message_class):
            def filtered(data):
                known = message_class.FromString(data)
                known.DiscardUnknownFields()
                if message_class.DESCRIPTOR.name == "GetServerInfoResponse":
                    known.version = "0.1.0"
                return known.SerializeToString()

            return filtered

        call = getattr(self._channel, kind)(path, drop(request), drop(response))

        def forward(asked, context):
            try:
                answer = call(asked, timeout=60)
                if not kind.endswith("stream"):
                    return answer
                return iter(list(answer))
            except grpc.RpcError as error:
                context.set_trailing_metadata(tuple(error.trailing_metadata() or ()))
                return context.abort(error.code(), error.details())

        return getattr(grpc, f"{kind}_rpc_method_handler")(forward)
