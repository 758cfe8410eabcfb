"""Reads and writes .safetensors files (https://huggingface.co/docs/safetensors): a JSON header, then the tensors' bytes."""

import json
import struct

import numpy as np

_TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I64": np.int64, "I32": np.int32, "BOOL": np.bool_}


def load(path):
    """({name: array}, metadata). NumPy has no bfloat16: BF16 is read as its bits, in uint16."""
    with open(path, "rb") as file:
        (header_size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(header_size))
        data = file.read()
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[begin:end], _TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors, metadata


def dump(tensors, metadata=None, types=None):
    """The bytes of a file with {name: array}. `types` says which arrays are what NumPy has no type for: {name: "BF16"}."""
    names = {np.dtype(dtype): name for name, dtype in _TYPES.items() if name != "BF16"}
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, array in tensors.items():
        dtype = (types or {}).get(name) or names[array.dtype]
        begin, data = len(data), data + np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def save(path, tensors, metadata=None):
    """Writes a file of {name: array}; as with load, uint16 stands for the bits of bfloat16."""
    types = {name: "BF16" for name, array in tensors.items() if array.dtype == np.uint16}
    with open(path, "wb") as file:
        file.write(dump(tensors, metadata, types))
