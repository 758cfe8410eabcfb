"""A sentence encoder (BERT, mean pooling) whose attention is computed elsewhere: everything else, in NumPy.

What is asked of `attention(layer, x, ends)`: for tokens x [total, D] of sentences end to end, of which sentence i is
x[ends[i]:ends[i + 1]], the layer's self-attention with its output projection, [total, D].
"""

import itertools
import json
import math
import pathlib

import numpy as np

from checkpoint import Checkpoint
from wordpiece import WordPiece

_erf = np.frompyfunc(math.erf, 1, 1)


class SentenceEncoder:
    """Arithmetic is float64, so that what the attention's float32 does can be seen."""

    def __init__(self, directory, attention, max_length=256):
        directory = pathlib.Path(directory)
        self.config = json.loads((directory / "config.json").read_text())
        self.weights = Checkpoint(directory / "model.safetensors")
        self._words = WordPiece(directory / "vocab.txt")
        self._attention = attention
        self._max_length = min(max_length, self.config["max_position_embeddings"])

    @property
    def num_layers(self):
        return self.config["num_hidden_layers"]

    def encode(self, sentences):
        """Embeddings of length 1, [len(sentences), D]."""
        tokens = [self._words.encode(sentence, self._max_length) for sentence in sentences]
        ends = np.cumsum([0, *map(len, tokens)])
        x = self._embed(tokens)
        for layer in range(self.num_layers):
            x = self._rest_of_layer(layer, x, self._attention(layer, x, ends))
        means = np.stack([x[first:last].mean(axis=0) for first, last in itertools.pairwise(ends)])
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def _embed(self, tokens):
        words = self.weights["embeddings.word_embeddings.weight"][np.concatenate(tokens)]
        positions = self.weights["embeddings.position_embeddings.weight"][np.concatenate([np.arange(len(one)) for one in tokens])]
        kind = self.weights["embeddings.token_type_embeddings.weight"][0]
        return self._norm("embeddings.LayerNorm", words.astype(np.float64) + positions + kind)

    def _rest_of_layer(self, layer, x, attended):
        name = f"encoder.layer.{layer}."
        x = self._norm(name + "attention.output.LayerNorm", x + attended)
        inner = self._linear(name + "intermediate.dense", x)
        inner = inner * 0.5 * (1 + _erf(inner / math.sqrt(2)).astype(np.float64))  # GELU.
        return self._norm(name + "output.LayerNorm", x + self._linear(name + "output.dense", inner))

    def _linear(self, name, x):
        return x @ self.weights[name + ".weight"].astype(np.float64).T + self.weights[name + ".bias"]

    def _norm(self, name, x):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + self.config["layer_norm_eps"])
        return x * self.weights[name + ".weight"] + self.weights[name + ".bias"]
