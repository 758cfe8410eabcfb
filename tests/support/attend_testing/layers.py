"""Named layers: files of weights, uploads, and the same weights inline."""

import hashlib

import numpy as np

from attend_testing import safetensors
from attend_testing.errors import call_failure
from attend_testing.requests import to_layer
from attend_testing.stubs import layers_pb, pb
from attend_testing.tensors import from_tensor, to_tensor

# No layer may have one of these names.
BAD_NAMES = [
    # Eleven ways out of a folder.
    "..", "../x", "a/../../x", "/etc/passwd", "a/..", "..%2fx", "a//b", "./a", "~/a", "a/../b", "..\\x",
    "", "A", "a b", "a/", "a\0b", "x" * 129, "x" * 4096,
    # Look-alikes: Cyrillic a, full-width a, full-width slash, one-dot leaders.
    "\u0430", "\uff41", "a\uff0fb", "a/\u2024\u2024",
]  # fmt: skip


class Weights:
    """The notebook's layer with random numbers: query, key and value, each with a bias."""

    def __init__(self, seed, dim=16, heads=1):
        rng = np.random.default_rng(seed)
        self.dim, self.heads = dim, heads
        self.projections = {
            name: (
                rng.standard_normal((dim, dim), dtype=np.float32) / np.float32(np.sqrt(dim)),
                rng.standard_normal(dim, dtype=np.float32),
            )
            for name in ("query", "key", "value")
        }

    def file(self, prefix=""):
        tensors = {}
        for name, (weight, bias) in self.projections.items():
            tensors[f"{prefix}{name}.weight"], tensors[f"{prefix}{name}.bias"] = weight, bias
        return safetensors.dump(tensors)

    def config(self):
        return layers_pb.LayerConfig(num_heads=self.heads)

    def inline(self):
        return to_layer(self.projections, self.heads)


def header(name, **fields):
    return layers_pb.CreateLayerRequest(header=layers_pb.CreateLayerHeader(name=name, **fields))


def chunks(data, size=1 << 20):
    return [layers_pb.CreateLayerRequest(chunk=data[i : i + size]) for i in range(0, len(data), size)]


def upload(stub, name, data=b"", chunk_size=1 << 20, timeout=60, **fields):
    """Uploads and returns the attend.v1.Layer."""
    return stub.CreateLayer(iter([header(name, **fields), *chunks(data, chunk_size)]), timeout=timeout).layer


def upload_failure(stub, requests, timeout=60):
    return call_failure(lambda messages, timeout: stub.CreateLayer(iter(messages), timeout=timeout), requests, timeout)


def embeddings(dim, tokens=5, seed=0):
    return np.random.default_rng(seed).standard_normal((tokens, dim), dtype=np.float32)


def attend(stub, tokens, timeout=60, **fields):
    """The output for `tokens` through `layer_name` or `layer`."""
    request = pb.AttendRequest(embeddings=to_tensor(tokens), **fields)
    return from_tensor(stub.Attend(request, timeout=timeout).output)


def sha256(data):
    return hashlib.sha256(data).hexdigest()
