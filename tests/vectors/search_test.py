"""examples/search on all-MiniLM-L6-v2, against a float64 computation of the whole model and of the ranking."""

import os
import pathlib
import subprocess
import sys
import unittest

import attend
import numpy as np

from attend_testing import bert_oracle, safetensors
from attend_testing.server import BUILD_DIR, SOURCE_DIR, Server

MODEL = pathlib.Path(os.environ["ATTEND_MINILM"])  # What scripts/minilm.sh prints.
EXAMPLE = SOURCE_DIR / "examples" / "search"
sys.path.insert(0, str(EXAMPLE))

from search import SHARPNESS, Search  # noqa: E402

TEXTS = (EXAMPLE / "texts.txt").read_text(encoding="utf-8").splitlines()
# Each with a text that answers it in other words.
QUESTIONS = {
    "Why do I sneeze in April?": "Pollen makes the eyes of many people itch in spring.",
    "What should I do so that nobody can read my messages?": "Encryption keeps messages secret on their way.",
    "Which planet is the biggest?": "Jupiter is the largest planet of the solar system.",
    "How long can I wait before I bring back what I bought?": "You may return the goods within fourteen days.",
    "Which animals navigate in the dark by sound?": "Bats find their way by listening to echoes.",
}
TOP = 5


class SearchTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.stop)
        client = attend.Client(cls.server.address)
        cls.addClassCleanup(client.close)
        cls.search = Search(client, MODEL, upload=True)
        cls.search.add(TEXTS)
        tensors, _ = safetensors.load(MODEL / "model.safetensors")
        encoder = cls.search._encoder

        def in_float64(sentences):
            ids = [encoder._words.encode(sentence, encoder._max_length) for sentence in sentences]
            return np.stack([bert_oracle.encode(tensors, encoder.config, one).embedding for one in ids])

        scores = SHARPNESS * in_float64(list(QUESTIONS)) @ in_float64(TEXTS).T
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        cls.weights = exponentials / exponentials.sum(axis=1, keepdims=True)

    def test_the_ranking_is_the_one_of_float64(self):
        for hits, weights in zip(self.search.ask(list(QUESTIONS), TOP), self.weights, strict=True):
            expected = np.argsort(-weights, kind="stable")[:TOP]
            self.assertEqual([hit.index for hit in hits], expected.tolist())
            np.testing.assert_allclose([hit.weight for hit in hits], weights[expected], rtol=1e-4)

    def test_questions_find_their_answers(self):
        for hits, answer in zip(self.search.ask(list(QUESTIONS), 1), QUESTIONS.values(), strict=True):
            self.assertEqual(hits[0].text, answer)

    def test_words_explain_the_hit(self):
        question = "Which planet is the biggest?"
        seen = {word: other for word, other, _ in self.search.explain(question, QUESTIONS[question])}
        self.assertEqual((seen["planet"], seen["biggest"]), ("planet", "largest"))

    def test_the_program(self):
        question = next(iter(QUESTIONS))
        command = [sys.executable, EXAMPLE / "main.py", "--model", MODEL, "--server", self.server.address, question]
        environment = os.environ | {"PYTHONPATH": str(BUILD_DIR / "python-site")}
        result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(QUESTIONS[question], result.stdout.splitlines()[1])



if __name__ == "__main__":
    unittest.main()
