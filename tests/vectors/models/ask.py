"""What attend makes of a saved model: a real server, every attention module under every prefix that a user may give."""

import hashlib
import itertools
import json
import os
import pathlib
import re

import grpc
import torch
from safetensors.torch import load_file

from attend_testing.server import BINARY, Server
from attend_testing.stubs import layers_pb, pb
from attend_testing.tensors import from_tensor, to_tensor

SERVER = os.environ.get("ATTEND_MODELS_SERVER", BINARY)
PATIENCE = 120
LEVELS = 3  # A prefix is the module's own path, its parent's or the parent's parent.


def _digest(tensor):
    return hashlib.sha256(tensor.detach().float().contiguous().numpy().tobytes()).digest() + str(tuple(tensor.shape)).encode()


class Saved:
    """A directory that save_pretrained wrote, and where in its file each module's tensors are."""

    def __init__(self, directory, file="model.safetensors"):
        self.file = pathlib.Path(directory) / file
        self.names = {}
        for name, tensor in load_file(self.file).items():
            self.names.setdefault(_digest(tensor), []).append(name)

    def prefixes(self, module, others):
        """Prefixes of `module`, the longest first, none of which has another attention module (of `others`) below it."""
        own = self._own(module)
        if not own:
            return []
        taken = [self._own(other) for other in others if other is not module]
        parts = own.rstrip(".").split(".")
        candidates = [".".join(parts[: len(parts) - up]) + "." for up in range(min(LEVELS, len(parts)))]
        return [one for one in candidates if one == own or not any(other != own and other.startswith(one) for other in taken)]

    def _own(self, module):
        """What stands before the names of the module's tensors, or of what save_pretrained renamed them to; "" if nothing."""
        saved = {name: self.names.get(_digest(parameter), ()) for name, parameter in module.named_parameters()}
        same = {one[: -len(name)] for name, names in saved.items() for one in names if one.endswith("." + name)}
        if same:
            return max(same, key=len)
        renamed = [names[0].split(".") for names in saved.values() if names]
        common = list(itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*renamed, strict=False)))
        return "".join(parts[0] + "." for parts in common)


class Asked:
    """A server with `layers`, {name: (file, prefix, a LayerConfig in JSON or None)}.

    Those that it refused are in `refused`, {name: sentence}.
    """

    def __init__(self, layers):
        flags = ["--skip-broken-layers", "--threads", "1", "--max-layers", str(len(layers) + 1)]
        for name, (file, prefix, supplied) in layers.items():
            flags += ["--layer", f"{name}={file}#{prefix}"] + (["--layer-config", f"{name}={supplied}"] if supplied else [])
        self._server = Server(*flags, binary=SERVER)
        self.refused = dict(re.findall(r"the layer '([^']+)' cannot be loaded: (?:/\S+: )*(.*)", self._server.log()))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.stop()

    def info(self, name):
        return self._server.layers.GetLayer(layers_pb.GetLayerRequest(name=name), timeout=PATIENCE).layer

    def attend(self, name, tokens, context=None, bias=None):
        """What the layer gives, as a float64 tensor, or the sentence with which the request is refused."""
        request = pb.AttendRequest(embeddings=to_tensor(tokens.float().numpy()), layer_name=name)
        if context is not None:
            request.context.CopyFrom(to_tensor(context.float().numpy()))
        if bias is not None:
            request.options.bias.CopyFrom(to_tensor(bias.float().numpy()))
        try:
            return torch.from_numpy(from_tensor(self._server.stub.Attend(request, timeout=PATIENCE).output).copy()).double()
        except grpc.RpcError as error:
            return error.details()


def read_config(directory):
    return json.loads((pathlib.Path(directory) / "config.json").read_text())
