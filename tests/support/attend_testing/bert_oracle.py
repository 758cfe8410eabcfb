"""A BERT encoder with mean pooling in float64, whole and one sentence at a time (Devlin et al. 2018, arXiv:1810.04805)."""

import dataclasses
import math

import numpy as np

from attend_testing import oracle

_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclasses.dataclass
class Layer:
    weights: np.ndarray  # Of attention, [H, T, T].
    attended: np.ndarray  # What attention's output projection gives, [T, D].
    output: np.ndarray  # [T, D]


@dataclasses.dataclass
class Trace:
    layers: list
    embedding: np.ndarray  # Of length 1, [D].


def encode(tensors, config, ids):
    """`tensors` as in a checkpoint of BertModel, `ids` those of one sentence's tokens."""

    def linear(name, x):
        return oracle.project(x, tensors[name + ".weight"], tensors[name + ".bias"])

    def norm(name, x):
        mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + config["layer_norm_eps"]) * tensors[name + ".weight"] + tensors[name + ".bias"]

    tables = [tensors[f"embeddings.{name}_embeddings.weight"].astype(np.float64) for name in ("word", "position", "token_type")]
    x = norm("embeddings.LayerNorm", tables[0][ids] + tables[1][: len(ids)] + tables[2][0])
    layers = []
    for i in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{i}."
        heads = [
            oracle.split_heads(linear(f"{name}attention.self.{part}", x)[None], config["num_attention_heads"])
            for part in ("query", "key", "value")
        ]
        result = oracle.attend(*heads)
        attended = linear(name + "attention.output.dense", oracle.merge_heads(result.output)[0])
        x = norm(name + "attention.output.LayerNorm", x + attended)
        inner = linear(name + "intermediate.dense", x)
        gelu = inner / 2 * (1 + _erf(inner / np.sqrt(2)))
        x = norm(name + "output.LayerNorm", x + linear(name + "output.dense", gelu))
        layers.append(Layer(result.weights[0], attended, x))
    mean = x.mean(axis=0)
    return Trace(layers, mean / np.linalg.norm(mean))
