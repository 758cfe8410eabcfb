"""all-MiniLM-L6-v2 with its attention in the server, against float64 and against what its authors publish."""

import os
import unittest

import numpy as np

from attend_testing import encoder_checks
from attend_testing.server import Server

MODEL = os.environ["ATTEND_MINILM"]  # What scripts/minilm.sh prints.

# The three sentences of the Sentence Transformers documentation, and the similarities that it shows for this model.
PUBLISHED_SENTENCES = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
PUBLISHED = ((1.0000, 0.6660, 0.1046), (0.6660, 1.0000, 0.1411), (0.1046, 0.1411, 1.0000))

SENTENCES = (
    *PUBLISHED_SENTENCES,
    "How old are you?",
    "What is your age?",
    "Attention is all you need, said the authors; na\u00efve readers (and caf\u00e9-goers) believed them at 100%.",
    "",
    "antidisestablishmentarianism 12345 \u6ce8\u610f\u529b",
    " ".join(["The quick brown fox jumps over the lazy dog, again and again."] * 20),  # Cut at 256 tokens.
)


class MiniLmTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(*encoder_checks.layer_flags(MODEL, "minilm"))
        cls.addClassCleanup(cls.server.stop)

    def test_every_layer_every_head_and_the_embeddings_against_float64(self):
        worst, embeddings = encoder_checks.check(MODEL, self.server.channel, "minilm", SENTENCES)
        print("worst errors:", ", ".join(f"{what} {error:.2g}" for what, error in worst.items()))
        self.assertGreater(embeddings[3] @ embeddings[4], 0.7, "the same question")
        self.assertLess(embeddings[3] @ embeddings[2], 0.3, "another subject")

    def test_similarities_are_the_published_ones(self):
        similarities = encoder_checks.run_example(MODEL, self.server.address, *PUBLISHED_SENTENCES)
        np.testing.assert_allclose(similarities, PUBLISHED, rtol=0, atol=1.01e-4)

    def test_uploaded_layers_give_the_same(self):
        similarities = [
            encoder_checks.run_example(MODEL, self.server.address, *PUBLISHED_SENTENCES, flags=flags)
            for flags in ((), ("--upload", "--name", "up"))
        ]
        np.testing.assert_array_equal(*similarities)


if __name__ == "__main__":
    unittest.main()
