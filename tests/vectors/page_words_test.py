"""The table of words of the HTTP door's page is what scripts/page_words.py makes of the published model, but for roundings."""

import importlib.util
import os
import subprocess
import sys
import unittest

from attend_testing.server import SOURCE_DIR

MODEL = os.environ["ATTEND_MINILM"]  # What scripts/minilm.sh prints.
SCRIPT = SOURCE_DIR / "scripts" / "page_words.py"


def steps_of(text):
    spec = importlib.util.spec_from_file_location("page_words", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {word: [script.DIGITS.index(digit) for digit in digits] for word, digits in lines}


class PageWordsTest(unittest.TestCase):
    def test_the_script_makes_the_file(self):
        made = subprocess.run([sys.executable, "-B", SCRIPT, MODEL], capture_output=True, text=True, timeout=3000, check=True).stdout
        file = (SOURCE_DIR / "server" / "http" / "page" / "words.txt").read_text()
        self.assertEqual(made.split("\na ")[0], file.split("\na ")[0], "the head of the file")
        made, file = steps_of(made), steps_of(file)
        self.assertEqual(list(made), list(file))
        apart = [abs(a - b) for word, steps in file.items() for a, b in zip(steps, made[word], strict=True)]
        self.assertLessEqual(max(apart), 1)
        self.assertLess(sum(apart), len(apart) / 1000, "numbers that fall on the other side of a rounding")


if __name__ == "__main__":
    unittest.main()
