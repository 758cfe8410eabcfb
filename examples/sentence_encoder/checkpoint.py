"""A checkpoint's tensors (https://huggingface.co/docs/safetensors), and files of some of them to upload."""

import json
import struct

import numpy as np

_TYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "I64": np.dtype("<i8")}


class Checkpoint:
    """Maps a .safetensors file; tensors are read where they lie."""

    def __init__(self, path):
        self._bytes = np.memmap(path, np.uint8, "r")
        (size,) = struct.unpack("<Q", self._bytes[:8].tobytes())
        self._header = json.loads(self._bytes[8 : 8 + size].tobytes())
        self._header.pop("__metadata__", None)
        self._data = self._bytes[8 + size :]

    def __getitem__(self, name):
        entry = self._header[name]
        return self._raw(entry).view(_TYPES[entry["dtype"]]).reshape(entry["shape"])

    def file_of(self, prefix):
        """The bytes of a .safetensors file with the tensors whose names begin with `prefix`."""
        header, parts, end = {}, [], 0
        for name, entry in self._header.items():
            if name.startswith(prefix):
                parts.append(self._raw(entry).tobytes())
                header[name] = entry | {"data_offsets": [end, end + len(parts[-1])]}
                end += len(parts[-1])
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text + b"".join(parts)

    def _raw(self, entry):
        begin, end = entry["data_offsets"]
        return self._data[begin:end]
