"""What calls return."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, NamedTuple

import numpy as np

from attend._arrays import Kind, name_of_type, stored_type
from attend._protocol import DATA_TYPES, message_class
from attend._wire import ReceivedTensor, fields_of, read, read_tensor

_DURATION = re.compile(r"(\w+);dur=([0-9.]+)")


class Timing(NamedTuple):
    """Where a call's time went in the server, in milliseconds."""

    receive: float  # From the call's arrival until its request was there.
    queue: float  # Waiting for a compute thread.
    compute: float
    send: float  # From the end of computing until the answer was handed to the transport.

    @staticmethod
    def parse(text: str) -> Timing:
        stages = {name: float(value) for name, value in _DURATION.findall(text)}
        return Timing(*(stages.get(name, 0.0) for name in Timing._fields))


class Receipt(NamedTuple):
    """Who computed a result, so that it can be repeated."""

    server_version: str
    kernel: str  # For example `avx512`.
    layer_etag: str  # Of the named layer; empty without one.


class Result:
    """What `sdpa` and `attend` return. A tensor that was not asked for is None.

    Tensors are of the kind that came in: NumPy arrays or torch CPU tensors, in memory of their own. B batch entries, H query
    heads, K key heads, T queries, S keys; axes in parentheses are there when the inputs had them. `output`, `query`, `key`
    and `value` have the type of the query or the embeddings; `log_sum_exp` is float32 and `top_attention_indices` int32; all else is
    float32, or float64 where the arithmetic is.
    """

    output: Any = None
    """The attended values: [(B,) (H,) T, V] from sdpa, [(B,) T, D] from attend."""
    attention_weights: Any = None
    """Softmax weights [(B,) T, S], the mean over the heads; with per_head [(B,) (H,) T, S]."""
    log_sum_exp: Any = None
    """The natural logarithm of each row's softmax denominator: [(B,) (H,) T]; attend always has the H."""
    query: Any = None
    """The projected query, from attend alone: [(B,) H, T, E]."""
    key: Any = None
    """The projected key, from attend alone: [(B,) K, S, E]."""
    value: Any = None
    """The projected value, from attend alone: [(B,) K, S, V]."""
    scores: Any = None
    """What enters the softmax, -Infinity where masked: [(B,) (H,) T, S]."""
    top_attention_weights: Any = None
    """The k largest weights of each row, largest first: [(B,) T, k], with per_head [(B,) (H,) T, k]."""
    top_attention_indices: Any = None
    """The keys that they belong to, int32; -1 where fewer than k keys have a weight above 0."""

    def __init__(self, tensors: dict[str, Any], receipt: bytes | None, server_timing: str):
        """As read_result finds them; `receipt` and `server_timing` are read when somebody asks for them."""
        self.__dict__.update(tensors)
        self._receipt, self._server_timing = receipt, server_timing

    @property
    def timing(self) -> Timing:
        """Where the call's time went in the server, in milliseconds."""
        return Timing.parse(self._server_timing)

    @property
    def receipt(self) -> Receipt | None:
        """Who computed it; None from a server of version 0.1."""
        return None if self._receipt is None else _read_receipt(self._receipt)

    def __repr__(self) -> str:
        tensors = (f"{name}={array.dtype}{list(array.shape)}" for name, array in vars(self).items() if name[0] != "_")
        return f"Result({', '.join(tensors)})"


def _read_receipt(content: bytes) -> Receipt:
    receipt = message_class("attend.v1.Receipt").FromString(content)
    return Receipt(*(getattr(receipt, name) for name in Receipt._fields))


_NAMES: dict[str, dict[int, str]] = {}


class _Layout(NamedTuple):
    """An answer of one tensor, but for the tensor's elements. Answers to requests of one shape differ in those alone."""

    head: bytes
    tail: bytes
    name: str
    type_name: str
    dtype: np.dtype[Any]
    elements: int
    shape: tuple[int, ...]
    receipt: bytes | None

    def read(self, content: bytes, kind: Kind, server_timing: str) -> Result:
        array = np.frombuffer(content, self.dtype, self.elements, len(self.head)).reshape(self.shape).copy()
        return Result({self.name: kind.dress(self.type_name, array)}, self.receipt, server_timing)


# Of small answers, whose time is that of the steps taken in Python, by message and size.
_SMALL_BYTES = 1 << 16
_MANY = 256
_LAYOUTS: dict[tuple[str, int], _Layout] = {}


def _remember(message: str, content: bytes, name: str, tensor: ReceivedTensor, receipt: bytes | None) -> None:
    """`tensor.data` is a view of `content`."""
    if not (size := tensor.data.nbytes):
        return
    if len(_LAYOUTS) >= _MANY:  # Threads may pass this together.
        _LAYOUTS.clear()
    begin = _address(tensor.data) - _address(content)
    type_name = name_of_type(tensor.type_number)
    dtype = stored_type(type_name)
    head, tail = content[:begin], content[begin + size :]
    elements = size // dtype.itemsize
    _LAYOUTS[message, len(content)] = _Layout(head, tail, name, type_name, dtype, elements, tensor.shape, receipt)


def _address(data: Any) -> int:
    return np.frombuffer(data, np.uint8).ctypes.data


def read_result(message: str, content: bytes | memoryview, kind: Kind, server_timing: str) -> Result:
    """The Result in a response, whose message is given by name. Fields that this version does not know are passed over."""
    if isinstance(content, bytes):
        layout = _LAYOUTS.get((message, len(content)))
        if layout is not None and content.startswith(layout.head) and content.endswith(layout.tail):
            return layout.read(content, kind, server_timing)
    if (names := _NAMES.get(message)) is None:
        names = _NAMES[message] = {field.number: name for name, field in fields_of(message).items()}
    tensors: dict[str, ReceivedTensor] = {}
    receipt = None
    for number, value in read(memoryview(content)):
        name = names.get(number)
        if name == "receipt":
            receipt = bytes(value)
        elif name is not None:
            tensors[name] = read_tensor(value)
    result = Result({name: kind.make(*tensor) for name, tensor in tensors.items()}, receipt, server_timing)
    if isinstance(content, bytes) and len(content) < _SMALL_BYTES and len(tensors) == 1:
        _remember(message, content, *tensors.popitem(), receipt)
    return result


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server accepts; each limit names the flag that sets it."""

    max_request_bytes: int
    max_response_bytes: int
    max_request_flops: float
    max_request_memory_bytes: int
    max_queued_requests: int
    max_memory_in_flight_bytes: int
    max_stream_requests_in_flight: int
    max_layers: int
    max_layer_bytes: int
    max_layers_bytes: int
    max_uploads: int


@dataclasses.dataclass(frozen=True)
class ServerInfo:
    """What a server is."""

    version: str
    instruction_set: str  # `AVX512`, `AVX2`, `NEON`, `SSE4` or `BASELINE`.
    bit_reproducible: bool  # Whether results have the same bits as those of every other server for which this is true.
    num_threads: int
    supported_data_types: tuple[str, ...]  # As NumPy names them.
    limits: Limits


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a request would cost."""

    flops: float  # Floating-point operations.
    memory_bytes: int  # Inputs, outputs and scratch.
    request_bytes: int
    response_bytes: int
    predicted_milliseconds: float  # On an idle server.
    admissible: bool  # Whether it is within all limits.
    limit: str  # The limit that it exceeds, for example `max_request_flops`; empty when admissible.
    description: str  # The sentence that it would be refused with; empty when admissible.


@dataclasses.dataclass(frozen=True)
class LayerInfo:
    """A layer that a server keeps."""

    name: str
    etag: str  # Changes whenever the layer does.
    config: dict[str, Any]  # LayerConfig as JSON has it; what is absent has its default.
    embed_dim: int  # The size of `embeddings`.
    context_dim: int
    head_dim: int
    value_dim: int
    output_dim: int
    has_output_projection: bool
    has_bias: bool
    has_query_norm: bool
    has_key_norm: bool
    has_alibi_slopes: bool
    has_sinks: bool
    weight_types: tuple[str, ...]  # As NumPy names them, the largest share first.
    weight_bytes: int
    memory_bytes: int
    sha256: str  # Of the uploaded bytes; empty for a layer that was not uploaded.
    origin: str
    read_only: bool  # Whether it belongs to the server's configuration.
    naming: str
    notes: tuple[str, ...]  # What was taken because nothing said otherwise.
    created: float  # Seconds since 1970-01-01 UTC.


_TYPE_NAMES = {number: name for name, number in DATA_TYPES.items()}


def type_names(numbers: Any) -> tuple[str, ...]:
    return tuple(_TYPE_NAMES.get(number, f"number {number}") for number in numbers)


def fill(cls: Any, message: Any, **given: Any) -> Any:
    """A dataclass from the message's fields of the same names, but for those that are `given`."""
    names = [field.name for field in dataclasses.fields(cls) if field.name not in given]
    return cls(**{name: getattr(message, name) for name in names}, **given)
