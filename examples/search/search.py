"""Retrieval by attention: a question is the query, the texts are keys, and what the softmax makes of them ranks them.

All attention is the server's: six layers of the sentence encoder, the ranking, and the words that explain it.
"""

import pathlib
import sys
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "sentence_encoder"))

from encoder import SentenceEncoder

# The softmax's scale on cosines, which lie between -1 and 1: a text that is better by 0.1 gets e^2 times the weight.
SHARPNESS = 20.0


class Hit(NamedTuple):
    index: int  # Of the text, in the order in which they were added.
    weight: float  # Its share of the question's attention over all texts.
    text: str


class Search:
    """`name`/i are the layers of all-MiniLM-L6-v2, whose checkpoint is in `directory`."""

    def __init__(self, client, directory, name="minilm", upload=False):
        self._client, self._name = client, name
        self._encoder = Tokens(directory, self._attend)
        if upload:
            for layer in range(self._encoder.num_layers):
                prefix = f"encoder.layer.{layer}.attention."
                weights = self._encoder.weights.file_of(prefix)
                heads = self._encoder.config["num_attention_heads"]
                client.layers.create(f"{name}/{layer}", weights, prefix=prefix, num_heads=heads, replace=True, ignore_config_json=True)
        self._texts, self._keys = [], None

    def _attend(self, layer, x, ends):
        """All sentences of a batch end to end, as encoder.py asks for it."""
        result = self._client.attend(x.astype(np.float32), layer=f"{self._name}/{layer}", cumulative_query_lengths=ends)
        return result.output.astype(np.float64)

    def add(self, texts):
        """Texts to be found, a string each."""
        keys = self._encoder.encode(texts).astype(np.float32)
        self._texts += texts
        self._keys = keys if self._keys is None else np.concatenate([self._keys, keys])

    def ask(self, questions, top=5):
        """The `top` texts of each question as Hits, the best one first."""
        queries = self._encoder.encode(questions).astype(np.float32)
        result = self._client.sdpa(queries, self._keys, self._keys, scale=SHARPNESS, top_k=top, outputs=[])
        ranked = zip(result.top_attention_indices, result.top_attention_weights, strict=True)
        return [
            [Hit(int(i), float(weight), self._texts[i]) for i, weight in zip(indices, weights, strict=True) if i >= 0]
            for indices, weights in ranked
        ]

    def explain(self, question, text):
        """For each word of the question the word of the text that it attends to most: [(word, other, weight)]."""
        (asked, words), (found, others) = (self._encoder.tokens(sentence) for sentence in (question, text))
        weights = self._client.sdpa(asked, found, found, scale=SHARPNESS, outputs=["attention_weights"]).attention_weights
        return [(word, others[row.argmax()], float(row.max())) for word, row in zip(words, weights, strict=True)]


class Tokens(SentenceEncoder):
    """Also gives what the last layer says of each token."""

    def tokens(self, sentence):
        """(vectors of length 1 [tokens, D] in float32, the tokens' texts), without the marks of begin and end."""
        ids = self._words.encode(sentence, self._max_length)
        x = self._embed([ids])
        for layer in range(self.num_layers):
            x = self._rest_of_layer(layer, x, self._attention(layer, x, np.array([0, len(ids)])))
        x = x[1:-1] / np.linalg.norm(x[1:-1], axis=1, keepdims=True)
        return x.astype(np.float32), [self._words.text_of(one) for one in ids[1:-1]]
