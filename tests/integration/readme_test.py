"""Runs README's examples as they stand, against a real server.

A block that is marked is run and must succeed; with `expect`, its output must hold the text:

    <!-- run -->
    <!-- expect: TEXT -->
    ```sh
    ...
    ```

`localhost:50051` stands for the server. Blocks are sh or python; none is left out.
"""

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from attend_testing.server import BINARY, BUILD_DIR, SOURCE_DIR, ServerTestCase

README = SOURCE_DIR / "README.md"
SUPPORT = pathlib.Path(__file__).resolve().parents[1] / "support"
GENERATED = BUILD_DIR / "generated" / "python"

BLOCK = re.compile(r"<!-- run -->\n((?:<!-- expect: .* -->\n)*)```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass
class Block:
    line: int
    language: str
    code: str
    expected: list


def marked_blocks(text):
    """Every block after a `run` mark; a mark without a block is an error."""
    blocks = [
        Block(
            line=text[: match.start()].count("\n") + 1,
            language=match[2],
            code=match[3],
            expected=re.findall(r"<!-- expect: (.*) -->", match[1]),
        )
        for match in BLOCK.finditer(text)
    ]
    marks = text.count("<!-- run")
    if marks != len(blocks):
        raise AssertionError(f"{marks} blocks are marked to be run, but only {len(blocks)} follow their mark directly")
    return blocks


class ReadmeTest(ServerTestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)

    def path(self):
        """The commands of this build first; grpcurl, or what stands in for it."""
        path = f"{BINARY.parent}:{os.environ['PATH']}"
        if shutil.which("grpcurl", path=path) is None:
            stand_in = self.directory / "bin" / "grpcurl"
            stand_in.parent.mkdir(exist_ok=True)
            stand_in.write_text(f'#!/bin/sh\nexec {sys.executable} -m attend_testing.grpcurl "$@"\n')
            stand_in.chmod(0o755)
            path = f"{stand_in.parent}:{path}"
        return path

    def run_block(self, block):
        code = re.sub(r"(localhost|127\.0\.0\.1):50051", self.server.address, block.code)
        command = {
            "sh": ["bash", "-euo", "pipefail", "-c", code],
            "bash": ["bash", "-euo", "pipefail", "-c", code],
            "python": [sys.executable, "-c", code],
        }[block.language]
        environment = os.environ | {
            "PATH": self.path(),
            "PYTHONPATH": f"{GENERATED}:{SUPPORT}" if block.language != "python" else str(GENERATED),
            "ATTEND_ENDPOINTS": self.server.address,
        }
        return subprocess.run(
            command, cwd=self.directory, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    def test_the_marked_examples_work(self):
        blocks = marked_blocks(README.read_text())
        self.assertGreaterEqual(len(blocks), 2, "README has lost its examples")
        for block in blocks:
            with self.subTest(f"README.md:{block.line}"):
                result = self.run_block(block)
                self.assertEqual(result.returncode, 0, f"{block.code}\n{result.stdout}\n{result.stderr}")
                for text in block.expected:
                    self.assertIn(text, result.stdout)

    def test_every_flag_of_the_table_exists_and_every_flag_is_in_the_table(self):
        text = subprocess.run([BINARY, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
        # In README `--max-connection-idle`, `-age` abbreviates what follows a common beginning.
        table = "\n".join(line for line in README.read_text().splitlines() if line.startswith("| `--"))
        self.assertTrue(table, "README has lost its table of flags")
        existing = set(re.findall(r"^\s+(?:-\w,)?(--[a-z-]+)", text, re.MULTILINE))
        about_flags = {"--help", "--version", "--config", "--print-config", "--check-config"}
        written = set(re.findall(r"`(--[a-z-]+)`", table))
        self.assertEqual(written - existing, set(), "in README, but not in --help")
        abbreviated = {flag for flag in existing - written if any(f"`-{tail}`" in table for tail in tails(flag))}
        self.assertEqual(existing - written - abbreviated - about_flags, set(), "in --help, but not in README")


def tails(flag):
    """--a-b-c -> b-c, c."""
    parts = flag[2:].split("-")
    return ["-".join(parts[start:]) for start in range(1, len(parts))]


class ExtractionTest(unittest.TestCase):
    TEXT = "a\n<!-- run -->\n<!-- expect: 42 -->\n```python\nprint(42)\n```\n\n```sh\nfalse\n```\n"

    def test_marked_blocks_are_found_with_their_expectations(self):
        (block,) = marked_blocks(self.TEXT)
        self.assertEqual(block, Block(2, "python", "print(42)\n", ["42"]))

    def test_a_mark_that_lost_its_block_is_an_error(self):
        for text in ("<!-- run -->\n\n```sh\ntrue\n```\n", "<!-- run -->\ntext\n"):
            with self.subTest(text), self.assertRaisesRegex(AssertionError, "1 blocks are marked .* only 0"):
                marked_blocks(text)


if __name__ == "__main__":
    unittest.main()
