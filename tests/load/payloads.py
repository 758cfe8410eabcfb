#!/usr/bin/env python3
"""Writes what `make load` sends: Attend requests over T tokens of 64 values, as JSON and as binary.

    payloads.py DIRECTORY        writes attend-TxD.json and attend-TxD.bin for each size

The JSON form has `values`, as a person with a JSON tool would write them. The binary form has `data`, little-endian bytes,
and is prefixed by its length as a varint, because ghz reads a file of such messages.
"""

import json
import pathlib
import sys

import numpy as np

SIZES = [(5, 64), (512, 64)]


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out + bytes([number]))


def field(number, payload):
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def main(directory):
    for tokens, size in SIZES:
        x = np.random.default_rng(tokens).standard_normal((tokens, size)).astype("<f4")
        name = directory / f"attend-{tokens}x{size}"
        values = [float(str(value)) for value in x.flat]  # The shortest decimals that give these floats again.
        name.with_suffix(".json").write_text(json.dumps({"embeddings": {"shape": [tokens, size], "values": values}}))
        # Tensor: shape = 2 (packed varints), data = 3. AttendRequest: embeddings = 1.
        tensor = field(2, b"".join(varint(length) for length in x.shape)) + field(3, x.tobytes())
        message = field(1, tensor)
        name.with_suffix(".bin").write_bytes(varint(len(message)) + message)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
