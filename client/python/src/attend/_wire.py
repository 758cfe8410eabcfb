"""Protobuf's wire format for messages that hold large tensors: written around the arrays' own memory, read in place.

Field numbers and types come from the descriptors of _protocol.py.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor

from attend._arrays import Tensor
from attend._large import LARGE_BYTES, join_large, memory_size
from attend._protocol import DATA_TYPES, descriptor

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


_SMALL = tuple(bytes((value,)) for value in range(0x80))


def _varint(value: int) -> bytes:
    """Negative numbers in two's complement of 64 bits, as int64 has them."""
    if 0 <= value < 0x80:
        return _SMALL[value]
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


_INTEGERS = {
    FieldDescriptor.CPPTYPE_ENUM: range(-(2**31), 2**31),
    FieldDescriptor.CPPTYPE_INT32: range(-(2**31), 2**31),
    FieldDescriptor.CPPTYPE_INT64: range(-(2**63), 2**63),
    FieldDescriptor.CPPTYPE_UINT32: range(2**32),
    FieldDescriptor.CPPTYPE_UINT64: range(2**64),
}


class _Field(NamedTuple):
    number: int
    is_double: bool
    integers: range  # That it holds; empty where it is none.
    tag: bytes  # Of a single element.
    bytes_tag: bytes  # Of bytes, messages and packed numbers.

    def varint(self, argument: str, value: int) -> bytes:
        """Raises ValueError for an integer of which the reader would keep the lower bits, which are another one."""
        least, most = self.integers[0], self.integers[-1]
        if not least <= value <= most:  # `in` looks at every integer where `value` is of a subclass of int.
            raise ValueError(f"{argument}: {value} is beyond the integers that the protocol has for it, {least} to {most}")
        return _varint(value)


def _fields(message: str) -> dict[str, _Field]:
    out = {}
    for field in descriptor(message).fields:
        is_double = field.type == FieldDescriptor.TYPE_DOUBLE
        number = field.number
        integers = _INTEGERS.get(field.cpp_type, range(0))
        out[field.name] = _Field(number, is_double, integers, _tag(number, _FIXED64 if is_double else _VARINT), _tag(number, _BYTES))
    return out


_FIELDS: dict[str, dict[str, _Field]] = {}


def fields_of(message: str) -> dict[str, _Field]:
    """The fields of a message by name; a name without a package is attend.v1's."""
    if message not in _FIELDS:
        _FIELDS[message] = _fields(message if "." in message else "attend.v1." + message)
    return _FIELDS[message]


class Message:
    """A message being built. Tensors are referred to, not copied: do not change them before it is sent."""

    def __init__(self, name: str):
        self._fields = fields_of(name)
        self._parts: list[Any] = []

    def number(self, name: str, value: float) -> None:
        """A number or an enum's value. Raises ValueError for an integer beyond the field's type."""
        field = self._fields[name]
        self._parts.append(field.tag + (struct.pack("<d", value) if field.is_double else field.varint(name, int(value))))

    def numbers(self, name: str, values: Iterable[int], argument: str = "") -> None:
        """A repeated field of integers, which the caller knows as `argument`. Raises as `number` does."""
        field = self._fields[name]
        self.raw(name, b"".join(field.varint(argument or name, value) for value in values))

    def raw(self, name: str, content: bytes) -> None:
        """A string, or a serialized message."""
        self._parts.append(self._fields[name].bytes_tag + _varint(len(content)) + content)

    def tensor(self, name: str, tensor: Tensor) -> None:
        self._parts.append((self._fields[name].bytes_tag, name, tensor))

    def message(self, name: str, message: Message) -> None:
        self._parts.append((self._fields[name].bytes_tag, name, message))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors, also those of messages within."""
        for part in self._parts:
            if isinstance(part, tuple):
                if isinstance(part[2], Message):
                    yield from part[2].tensors()
                else:
                    yield part[1], part[2]

    def pieces(self, with_data: bool = True) -> tuple[list[Any], int]:
        """The bytes, as pieces to be joined, and how many they are. Without data, tensors have type and shape alone."""
        out: list[Any] = []
        size = 0
        for part in self._parts:
            if isinstance(part, bytes):
                out.append(part)
                size += len(part)
                continue
            tag, name, content = part
            if isinstance(content, Message):
                inner, inner_size = content.pieces(with_data)
            else:
                inner, inner_size = _tensor_pieces(content, name, with_data)
            head = tag + _varint(inner_size)
            out.append(head)
            out += inner
            size += len(head) + inner_size
        return out, size


_TYPE, _SHAPE, _DATA = (fields_of("Tensor")[name] for name in ("data_type", "shape", "data"))
_TYPE_FIELDS = {name: _TYPE.tag + _varint(number) for name, number in DATA_TYPES.items()}


@functools.lru_cache(maxsize=256)  # Programs send the same few shapes again and again.
def _tensor_head(type_name: str, shape: tuple[int, ...], data_bytes: int | None) -> bytes:
    """What stands before a tensor's data, whose tag and size are the last of it; None for a tensor without data."""
    axes = b"".join(map(_varint, shape))
    head = _TYPE_FIELDS[type_name] + _SHAPE.bytes_tag + _varint(len(axes)) + axes
    return head if data_bytes is None else head + _DATA.bytes_tag + _varint(data_bytes)


def _tensor_pieces(tensor: Tensor, name: str, with_data: bool) -> tuple[list[Any], int]:
    if not with_data:
        head = _tensor_head(tensor.type, tensor.shape, None)
        return [head], len(head)
    buffer = tensor.buffer(name)
    size = buffer.nbytes
    head = _tensor_head(tensor.type, tensor.shape, size)
    return [head, buffer], len(head) + size


def join(pieces: list[Any]) -> bytes:
    """The one copy of a request's tensors that this package makes."""
    size = sum(map(memory_size, pieces)) if len(pieces) > 1 else 0
    return b"".join(pieces) if size < LARGE_BYTES else join_large(pieces, size)


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def read(data: memoryview) -> Iterator[tuple[int, Any]]:
    """The fields of a serialized message: (number, an int or a view of the field's bytes)."""
    at, end = 0, len(data)
    while at < end:
        key = data[at]
        at += 1
        if key >= 0x80:
            key, at = _read_varint(data, at - 1)
        wire_type = key & 7
        if wire_type == _VARINT:
            value, at = _read_varint(data, at)
            yield key >> 3, value
            continue
        if wire_type == _BYTES:
            size = data[at]
            at += 1
            if size >= 0x80:
                size, at = _read_varint(data, at - 1)
        elif wire_type in (_FIXED64, _FIXED32):
            size = 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"the server's answer holds the wire type {wire_type}, which proto3 does not have")
        if at + size > end:
            raise ValueError("the server's answer is cut short")
        yield key >> 3, data[at : at + size]
        at += size


class ReceivedTensor(NamedTuple):
    """A tensor of a response; `data` views the response's bytes."""

    type_number: int
    shape: tuple[int, ...]
    data: memoryview


def read_tensor(content: memoryview) -> ReceivedTensor:
    type_number, shape, data = DATA_TYPES["float32"], [], memoryview(b"")
    for number, value in read(content):
        if number == _TYPE.number:
            type_number = value
        elif number == _DATA.number:
            data = value
        elif number == _SHAPE.number:
            at = 0
            while at < len(value):
                axis, at = _read_varint(value, at)
                shape.append(axis)
    return ReceivedTensor(type_number, tuple(shape), data)
