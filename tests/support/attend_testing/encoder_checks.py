"""What examples/sentence_encoder promises, for a checkpoint big or small: a real server, and bert_oracle as the judge."""

import json
import pathlib
import subprocess
import sys

import numpy as np

from attend_testing import bert_oracle, safetensors
from attend_testing.server import BUILD_DIR, PATIENCE, SOURCE_DIR
from attend_testing.tensors import assert_near, from_tensor

EXAMPLE = SOURCE_DIR / "examples" / "sentence_encoder"
sys.path.insert(0, str(EXAMPLE))

from encoder import SentenceEncoder  # noqa: E402
from remote_attention import RemoteAttention  # noqa: E402
from wordpiece import WordPiece as WordPiece  # noqa: E402

# What is promised of a whole model, in which each layer's error is the next one's.
LAYER, EMBEDDING, COSINE = 5e-5, 1e-5, 1e-9
# A weight w moves by at most w (1 - w) <= 1/4 of the change of its score against the others': with scores off by the
# errors of queries and keys that LAYER allows, this is generous; with the weights of another head, or none, it fails.
WEIGHTS = 5e-5


def layer_flags(directory, name):
    """The server's flags for every layer of a checkpoint, whose heads are in the config.json beside it."""
    layers = json.loads((pathlib.Path(directory) / "config.json").read_text())["num_hidden_layers"]
    path = pathlib.Path(directory) / "model.safetensors"
    return [flag for i in range(layers) for flag in ("--layer", f"{name}/{i}={path}#encoder.layer.{i}.")]


class Recorder(SentenceEncoder):
    """Keeps what each layer's attention gave, each head's weights, and what came out of the layer."""

    def __init__(self, directory, channel, name):
        self._remote = RemoteAttention(channel, name, with_weights=True)
        super().__init__(directory, self._attend)
        self.attended, self.head_weights, self.outputs = [], [], []

    def _attend(self, layer, x, ends):
        self.attended.append(self._remote(layer, x, ends))
        self.head_weights.append(from_tensor(self._remote.answer.attention_weights))
        return self.attended[-1]

    def _rest_of_layer(self, layer, x, attended):
        self.outputs.append(super()._rest_of_layer(layer, x, attended))
        return self.outputs[-1]


def check(directory, channel, name, sentences):
    """Encodes through the server's layers `name`/i; returns the worst errors {what: error} and the embeddings."""
    directory = pathlib.Path(directory)
    tensors, _ = safetensors.load(directory / "model.safetensors")
    encoder = Recorder(directory, channel, name)
    embeddings = encoder.encode(sentences)
    ids = [encoder._words.encode(sentence, encoder._max_length) for sentence in sentences]
    ends = np.cumsum([0, *map(len, ids)])
    traces = [bert_oracle.encode(tensors, encoder.config, one) for one in ids]
    worst = {"attended": 0.0, "output": 0.0, "weights": 0.0, "embedding": 0.0, "cosine": 0.0}

    def near(what, actual, expected, bound, where):
        assert_near(actual, expected, bound, f"{what}, {where}")
        worst[what] = max(worst[what], np.abs(actual - expected).max())

    for s, trace in enumerate(traces):
        rows, length = slice(ends[s], ends[s + 1]), len(ids[s])
        for i, layer in enumerate(trace.layers):
            where = f"layer {i} of sentence {s}"
            near("attended", encoder.attended[i][rows], layer.attended, LAYER, where)
            near("weights", encoder.head_weights[i][:, rows, :length], layer.weights, WEIGHTS, where)
            near("output", encoder.outputs[i][rows], layer.output, LAYER, where)
        near("embedding", embeddings[s], trace.embedding, EMBEDDING, f"sentence {s}")
        distance = 1 - embeddings[s] @ trace.embedding
        assert distance < COSINE, f"the cosine distance of sentence {s} is {distance}"
        worst["cosine"] = max(worst["cosine"], distance)
    return worst, embeddings


def run_example(directory, address, *sentences, flags=()):
    """The similarities that it prints, [len(sentences), len(sentences)]."""
    command = ["/usr/bin/python3", "-B", EXAMPLE / "main.py", "--model", directory, "--server", address, *flags, *sentences]
    environment = {"PYTHONPATH": str(BUILD_DIR / "generated" / "python")}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return np.array([list(map(float, line.split()[: len(sentences)])) for line in done.stdout.splitlines()])
