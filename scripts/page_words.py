#!/usr/bin/env python3
"""Writes server/http/page/words.txt: what all-MiniLM-L6-v2 makes of common words, small enough for the page.

    scripts/page_words.py "$(scripts/minilm.sh)" > server/http/page/words.txt        (five minutes; needs python3-numpy)

docs/page.md, "How words become vectors", says what is done and what the file looks like.
"""

import itertools
import pathlib
import re
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples" / "sentence_encoder"))

from encoder import SentenceEncoder  # noqa: E402

COMMONEST = 3200
SIZE = 32
AT_A_TIME = 200
# A number is one of these characters: the first stands for -3.2, the last for 3.1.
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
STEPS = 10  # For each unit.

HEADER = """\
# Words as the model sentence-transformers/all-MiniLM-L6-v2 (Apache License 2.0) sees them, reduced from 384 numbers to {size}.
# Made by scripts/page_words.py; docs/page.md says how. {kept:.0f} % of the variance is kept; the similarities of pairs of words
# correlate {correlation:.2f} with the model's own. One word a line, and a character for each number: the position in
# A-Z a-z 0-9 - _, less 32, over 10.
"""


class Attention:
    """The model's attention in NumPy, a sentence at a time."""

    def __init__(self):
        self.encoder = None

    def __call__(self, layer, x, ends):
        name, heads = f"encoder.layer.{layer}.attention.", self.encoder.config["num_attention_heads"]
        query, key, value = (
            self.encoder._linear(f"{name}self.{part}", x).reshape(len(x), heads, -1) for part in ("query", "key", "value")
        )
        mixed = [self._attend(*(one[first:last] for one in (query, key, value))) for first, last in itertools.pairwise(ends)]
        return self.encoder._linear(f"{name}output.dense", np.concatenate(mixed))

    @staticmethod
    def _attend(query, key, value):
        scores = np.einsum("the,she->hts", query, key) / np.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return np.einsum("hts,she->the", weights, value).reshape(len(query), -1)


def words_of(model):
    """The commonest of the model's vocabulary, which lists them by falling frequency, and the everyday ones."""
    vocabulary = (pathlib.Path(model) / "vocab.txt").read_text(encoding="utf-8").split("\n")
    common = [word for word in vocabulary if re.fullmatch("[a-z]{2,}|[ai]", word)][:COMMONEST]
    lines = (ROOT / "scripts" / "page_words.txt").read_text().split("\n")
    return list(dict.fromkeys(common + [word for line in lines if not line.startswith("#") for word in line.split()]))


def embeddings_of(model, words):
    """[words, 384], each of length 1: the model's embedding of each word as a text of its own."""
    attention = Attention()
    attention.encoder = SentenceEncoder(model, attention)
    return np.concatenate([attention.encoder.encode(words[i : i + AT_A_TIME]) for i in range(0, len(words), AT_A_TIME)])


def reduce(embeddings):
    """The principal components of the words, [words, SIZE], each row with a mean square of 1; the variance kept, in percent."""
    centred = embeddings - embeddings.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:SIZE] * np.sign(axes[np.arange(SIZE), np.abs(axes[:SIZE]).argmax(axis=1)])[:, None]  # One of two signs.
    reduced = centred @ axes.T
    kept = 100 * (singular[:SIZE] ** 2).sum() / (singular**2).sum()
    return reduced / np.sqrt((reduced**2).mean(axis=1, keepdims=True)), kept


def cosines(rows):
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows @ rows.T)[np.triu_indices(len(rows), 1)]


def main():
    words = words_of(sys.argv[1])
    embeddings = embeddings_of(sys.argv[1], words)
    reduced, kept = reduce(embeddings)
    half = len(DIGITS) // 2
    steps = np.clip(np.rint(reduced * STEPS), -half, half - 1).astype(int)
    correlation = np.corrcoef(cosines(embeddings - embeddings.mean(axis=0)), cosines(steps.astype(float)))[0, 1]
    sys.stdout.write(HEADER.format(size=SIZE, kept=kept, correlation=correlation))
    for word, row in sorted(zip(words, steps.tolist(), strict=True)):
        print(word, "".join(DIGITS[step + half] for step in row))


if __name__ == "__main__":
    main()
