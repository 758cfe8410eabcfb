"""The sentence encoder's example on a BERT of 12 thousand random numbers; minilm_test.py has the real one."""

import json
import pathlib
import tempfile
import unittest

import numpy as np

from attend_testing import encoder_checks, safetensors
from attend_testing.server import Server

CONFIG = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
}
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *"!,.?'",
    "how",
    "old",
    "are",
    "you",
    "un",
    "##break",
    "##able",
    "##s",
    "cafe",
    "it",
    "is",
    "\u5927",
]
SENTENCES = ("How old are you?", "Unbreakable!", "It is, is it\u5927?", "Xyzzy", "", "how " * 100)


def make_model(directory):
    """A checkpoint as BertModel writes it, of random numbers of a trained model's size."""
    rng = np.random.default_rng(3)
    d, inner, tensors = CONFIG["hidden_size"], CONFIG["intermediate_size"], {}

    def linear(name, rows, columns):
        tensors[f"{name}.weight"] = rng.standard_normal((rows, columns), dtype=np.float32) / np.float32(np.sqrt(columns))
        tensors[f"{name}.bias"] = rng.standard_normal(rows, dtype=np.float32) / 10

    def norm(name):
        tensors[f"{name}.weight"] = 1 + rng.standard_normal(d, dtype=np.float32) / 10
        tensors[f"{name}.bias"] = rng.standard_normal(d, dtype=np.float32) / 10

    for name, rows in (("word", len(VOCABULARY)), ("position", CONFIG["max_position_embeddings"]), ("token_type", 2)):
        tensors[f"embeddings.{name}_embeddings.weight"] = rng.standard_normal((rows, d), dtype=np.float32)
    norm("embeddings.LayerNorm")
    for i in range(CONFIG["num_hidden_layers"]):
        name = f"encoder.layer.{i}."
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{name}attention.{part}", d, d)
        linear(name + "intermediate.dense", inner, d)
        linear(name + "output.dense", d, inner)
        norm(name + "attention.output.LayerNorm")
        norm(name + "output.LayerNorm")
    safetensors.save(directory / "model.safetensors", tensors)
    (directory / "config.json").write_text(json.dumps(CONFIG))
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")


class SentenceEncoderTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="attend-encoder-")
        cls.addClassCleanup(directory.cleanup)
        cls.directory = pathlib.Path(directory.name)
        make_model(cls.directory)
        cls.server = Server(*encoder_checks.layer_flags(cls.directory, "tiny"))
        cls.addClassCleanup(cls.server.stop)

    def test_layers_of_the_servers_configuration_against_float64(self):
        worst, _ = encoder_checks.check(self.directory, self.server.channel, "tiny", SENTENCES)
        self.assertGreater(worst["attended"], 0, "float32 was computed, not float64 copied")

    def test_uploaded_layers_give_the_same(self):
        similarities = encoder_checks.run_example(self.directory, self.server.address, *SENTENCES[:3], flags=("--name", "tiny"))
        for _ in range(2):  # The second time layers are replaced.
            uploaded = encoder_checks.run_example(self.directory, self.server.address, *SENTENCES[:3], flags=("--name", "up", "--upload"))
            np.testing.assert_array_equal(uploaded, similarities)
        np.testing.assert_allclose(np.diag(similarities), 1, atol=1e-4)
        encoder_checks.check(self.directory, self.server.channel, "up", SENTENCES)

    def test_words_are_cut_as_bert_cuts_them(self):
        words = encoder_checks.WordPiece(self.directory / "vocab.txt")
        cases = {
            "How old are you?": ["how", "old", "are", "you", "?"],
            "UNBREAKABLEs": ["un", "##break", "##able", "##s"],
            "Caf\u00e9's": ["cafe", "'", "[UNK]"],
            "it\u5927is": ["it", "\u5927", "is"],
            "un\u200bbreak\tunbreakx": ["un", "##break", "[UNK]"],
            "a" * 101: ["[UNK]"],
            " \n ": [],
        }
        for text, pieces in cases.items():
            with self.subTest(text):
                ids = words.encode(text, 16)
                self.assertEqual([VOCABULARY[i] for i in ids], ["[CLS]", *pieces, "[SEP]"])
        self.assertEqual(len(words.encode("how " * 100, 16)), 16)


if __name__ == "__main__":
    unittest.main()
