"""What the methods of `client.layers` do; see _flows.py."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Union

import grpc
import numpy as np
from google.protobuf import json_format

from attend._arrays import Tensor, refuse_empty, to_tensor
from attend._deadline import optional_seconds
from attend._errors import AttendError
from attend._flows import Call, Flow, Upload, refuse_old_server
from attend._options import NEWER_OPTIONS, count
from attend._protocol import ATTENTION, LAYERS, message_class
from attend._results import LayerInfo, fill, type_names

Source = Union[str, os.PathLike[str], bytes, Mapping[str, Any]]

_CHUNK = 1 << 20  # Bytes of an upload's messages.
_NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
# The last ones are those of masks and positions that modules carry along, which the server knows by name.
_SAFETENSORS_TYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
}  # fmt: skip


def _message(message: str, /, **fields: Any) -> Any:
    return message_class("attend.v1." + message)(**fields)


def _without_old_fields(message: Any) -> None:
    """Moves what version 0.1 keeps in float32 to the fields of today; newer servers report both."""
    for name in ("scale", "softcap", "norm_epsilon"):
        old = f"float_{name}"
        if old in message.DESCRIPTOR.fields_by_name and message.HasField(old):
            if not message.HasField(name):
                setattr(message, name, getattr(message, old))
            message.ClearField(old)


def _to_info(layer: Any) -> LayerInfo:
    _without_old_fields(layer.config)
    _without_old_fields(layer.config.options)
    return fill(
        LayerInfo,
        layer,
        config=json_format.MessageToDict(layer.config, preserving_proto_field_name=True),
        weight_types=type_names(layer.weight_types),
        notes=tuple(layer.notes),
        created=layer.create_time.seconds + layer.create_time.nanos / 1e9 or layer.create_time_ms / 1e3,
    )


def list_layers(name_prefix: str) -> Flow[list[LayerInfo]]:
    layers: list[LayerInfo] = []
    token = ""
    while True:
        request = _message("ListLayersRequest", name_prefix=name_prefix, page_size=1000, page_token=token)
        reply = yield Call(LAYERS + "ListLayers", [request.SerializeToString()])
        page = message_class("attend.v1.ListLayersResponse").FromString(reply.content)
        layers += map(_to_info, page.layers)
        token = page.next_page_token
        if not token:
            return layers


def get_layer(name: str) -> Flow[LayerInfo]:
    reply = yield Call(LAYERS + "GetLayer", [_message("GetLayerRequest", name=name).SerializeToString()])
    return _to_info(message_class("attend.v1.GetLayerResponse").FromString(reply.content).layer)


def delete_layer(name: str, etag: str | None) -> Flow[None]:
    refuse_empty(etag, "etag")
    request = _message("DeleteLayerRequest", name=name, etag=etag or "")
    yield Call(LAYERS + "DeleteLayer", [request.SerializeToString()])


def make_config(config: Mapping[str, Any] | None, num_heads: int | None, num_kv_heads: int | None) -> Any:
    """A LayerConfig. Raises ValueError for what is none."""
    try:
        message = json_format.ParseDict(dict(config or {}), _message("LayerConfig"))
    except json_format.ParseError as error:
        raise ValueError(f"config: {error}") from None
    for name, value in (("num_heads", num_heads), ("num_kv_heads", num_kv_heads)):
        if value is not None:
            if getattr(message, name) not in (0, count(name, value)):
                raise ValueError(f"{name} is {value}, and {getattr(message, name)} in config")
            setattr(message, name, count(name, value))
    return message


def _newer_fields(config: Any) -> list[str]:
    """What version 0.1 of the server would not read."""
    fields = ["config.norm_epsilon"] if config.HasField("norm_epsilon") else []
    return fields + [f"config.options.{field.name}" for field, _ in config.options.ListFields() if field.name in NEWER_OPTIONS]


def _refuse_if_old(fields: list[str], timeout: float | None) -> Flow[None]:
    """EstimateCost came with the fields: a server that does not know it does not know them either. Whatever else a server answers
    (its caller may lack the role for this method, which the upload does not need), it knows the method."""
    try:
        yield Call(ATTENTION + "EstimateCost", [], timeout)
    except AttendError as error:
        if error.code == grpc.StatusCode.UNIMPLEMENTED:
            yield from refuse_old_server(fields, timeout)
        if error.code in _NO_ANSWER:
            raise


def _refuse_config_beside(source: Source) -> None:
    """What a model's config.json says changes the layer; the rules of all models are in `attend`, the command."""
    if isinstance(source, (bytes, Mapping)):
        return
    beside = os.path.join(os.path.dirname(os.fspath(source)), "config.json")
    if os.path.exists(beside):
        raise ValueError(
            f"{beside} may say more of the layer, and is not read here. `attend layers upload NAME {os.fspath(source)}` sends what it "
            "says; ignore_config_json=True uploads the file with num_heads and config alone"
        )


def create_layer(
    name: str, source: Source | None, init: tuple[int, int] | None, config: Any, prefix: str, replace: bool,
    etag: str | None, sha256: str | None, ignore_config_json: bool, timeout: float | None,
) -> Flow[LayerInfo]:  # fmt: skip
    if (source is None) == (init is None):
        raise ValueError("a layer is made from `source` or from `init`: exactly one of them must be given")
    if source is not None and not ignore_config_json:
        _refuse_config_beside(source)
    refuse_empty(etag, "etag")
    refuse_empty(sha256, "sha256")
    timeout = optional_seconds(timeout)
    digest = sha256.lower() if isinstance(sha256, str) else sha256 or ""  # As the server has it.
    header = _message("CreateLayerHeader", name=name, config=config, prefix=prefix, replace=replace, etag=etag or "", sha256=digest)
    if init is not None:
        header.init.seed, header.init.embed_dim = init
    with contextlib.ExitStack() as files:
        chunks, size = ([], 0) if source is None else _chunks(source, prefix, files)
        if newer := _newer_fields(config):
            yield from _refuse_if_old(newer, timeout)
        upload = Upload(_messages(header, chunks))
        reply = yield Call(LAYERS + "CreateLayer", upload, timeout, extra_seconds=size / (1 << 20), is_upload=True)
    return _to_info(message_class("attend.v1.CreateLayerResponse").FromString(reply.content).layer)


def _messages(header: Any, chunks: Iterable[bytes]) -> Iterator[list[bytes]]:
    yield [_message("CreateLayerRequest", header=header).SerializeToString()]
    for chunk in chunks:
        yield [_message("CreateLayerRequest", chunk=chunk).SerializeToString()]


def _chunks(source: Source, prefix: str, files: contextlib.ExitStack) -> tuple[Iterable[bytes], int]:
    """The bytes of a .safetensors file in pieces of _CHUNK, and how many they are. `files` closes what is opened here."""
    if isinstance(source, Mapping):
        pieces, size = _safetensors(_with_prefix(source, prefix))
        return (bytes(piece[at : at + _CHUNK]) for piece in pieces for at in range(0, len(piece), _CHUNK)), size
    if isinstance(source, bytes):
        return (source[at : at + _CHUNK] for at in range(0, len(source), _CHUNK)), len(source)
    file = files.enter_context(open(source, "rb"))  # noqa: SIM115
    return iter(lambda: file.read(_CHUNK), b""), os.fstat(file.fileno()).st_size


def _with_prefix(arrays: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
    """Those of a layer at `prefix`, as the server takes it: a dot at its end may be left out. The others need be no weights."""
    if not prefix:
        return arrays
    start = prefix if prefix.endswith(".") else prefix + "."
    chosen = {name: array for name, array in arrays.items() if name.startswith(start)}
    if chosen:  # And what the modules around it say of its rotary embedding: the server refuses what it does not know.
        parts = start.split(".")
        around = {".".join([*parts[:depth], "rotary_emb.inv_freq"]) for depth in range(len(parts))}
        chosen.update((name, array) for name, array in arrays.items() if name in around)
    else:
        raise ValueError(f"no name in `source` has the prefix {start!r}; the first are {', '.join(map(repr, list(arrays)[:5]))}")
    return chosen


def _safetensors(arrays: Mapping[str, Any]) -> tuple[list[memoryview], int]:
    """A .safetensors file of named arrays or tensors, as pieces, and its size."""
    header: dict[str, Any] = {}
    pieces: list[memoryview] = []
    end = 0
    for name, array in arrays.items():
        tensor: Tensor = to_tensor(array, name, tuple(_SAFETENSORS_TYPES))
        piece = np.ravel(tensor.buffer(name)).view(np.uint8).data
        header[name] = {
            "dtype": _SAFETENSORS_TYPES[tensor.type],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + len(piece)],
        }
        end += len(piece)
        pieces.append(piece)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    return [memoryview(head), *pieces], len(head) + end
