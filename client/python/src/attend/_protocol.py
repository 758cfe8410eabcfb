"""The messages of attend.v1 and google.rpc in a descriptor pool of this package's own.

A program may so have generated classes of the same messages, from any version of protoc, beside this package.
"""

from __future__ import annotations

import pathlib
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(
    pathlib.Path(__file__).with_name("_protocol.binpb").read_bytes()
).file:
    _POOL.AddSerializedFile(_file.SerializeToString())

ATTENTION = "/attend.v1.AttentionService/"
LAYERS = "/attend.v1.LayerService/"


def descriptor(name: str) -> Any:
    """The descriptor of a message, by its full name."""
    return _POOL.FindMessageTypeByName(name)


def message_class(name: str) -> Any:
    """The class of a message, by its full name."""
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor(name))
    return message_factory.MessageFactory(_POOL).GetPrototype(descriptor(name))  # protobuf before 4.22.


def enum_names(name: str) -> dict[str, int]:
    """{"float32": 1, ...}: the values of the enum `name`, without their common prefix and in lower case."""
    values = _POOL.FindEnumTypeByName(name).values_by_number
    prefix = values[0].name.removesuffix("UNSPECIFIED")
    return {value.name[len(prefix) :].lower(): number for number, value in values.items() if number != 0}


DATA_TYPES = enum_names("attend.v1.DataType")
CAUSAL_MODES = enum_names("attend.v1.CausalMode")
LAYOUTS = enum_names("attend.v1.TensorLayout")
OUTPUTS = enum_names("attend.v1.OutputKind")
WEIGHTS_FORMS = enum_names("attend.v1.AttentionWeightsForm")
