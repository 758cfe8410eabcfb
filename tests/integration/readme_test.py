"""Runs README's examples as they stand, against a real server: each block that is not marked otherwise, see readme_blocks.

The blocks share one directory, which holds the files that they name, and are run in README's order. `localhost:50051`
stands for the server, `127.0.0.1:9090` for an admin door, `build/release/bin` for this build. What is not Debian's, grpcurl, is built by
scripts/find-grpcurl.sh; where that is impossible, attend_testing.grpcurl stands in for it.
"""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

import numpy as np

from attend_testing import safetensors
from attend_testing.server import BINARY, BUILD_DIR, SOURCE_DIR, ServerTestCase
from readme_blocks import Block, all_blocks

README = (SOURCE_DIR / "README.md").read_text()
PACKAGE_README = (SOURCE_DIR / "client" / "python" / "README.md").read_text()
NOTEBOOK = SOURCE_DIR / "tests" / "data" / "golden" / "notebook_5x64.safetensors"

# A block's background processes end with it.
SHELL_SETUP = "trap 'kill $(jobs -p) 2>/dev/null && wait || true' EXIT\n"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def grpcurl_directory(directory):
    """Where grpcurl is; its stand-in is made in `directory`."""
    found = subprocess.run([SOURCE_DIR / "scripts" / "find-grpcurl.sh"], capture_output=True, text=True, check=False)
    if found.returncode == 0:
        return found.stdout.strip()
    print(f"README's grpcurl line is run by a stand-in, not by grpcurl:\n{found.stderr}")
    stand_in = directory / "grpcurl"
    environment = " ".join(f"{name}='{os.environ[name]}'" for name in ("PYTHONPATH", "ATTEND_BUILD_DIR"))
    stand_in.write_text(f'#!/bin/sh\n{environment} exec {sys.executable} -m attend_testing.grpcurl "$@"\n')
    stand_in.chmod(0o755)
    return directory


class ExamplesTestCase(ServerTestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        (self.directory / "proto").symlink_to(SOURCE_DIR / "proto")
        (self.directory / "bin").mkdir()
        self.path = f"{BINARY.parent}:{grpcurl_directory(self.directory / 'bin')}:{os.environ['PATH']}"

        np.save(self.directory / "x.npy", safetensors.load(NOTEBOOK)[0]["x"])
        shutil.copy(NOTEBOOK, self.directory / "weights.safetensors")
        x = np.load(self.directory / "x.npy")
        np.save(self.directory / "three-and-four.npy", np.concatenate([x, x])[:7])
        for name in ("q", "k", "v", "k1", "v1", "k2", "v2"):
            np.save(self.directory / f"{name}.npy", np.random.default_rng(0).standard_normal((4, 7, 8), np.float32))

    def command(self, block, address):
        code = re.sub(r"(localhost|127\.0\.0\.1):50051", address, block.code)
        code = code.replace("127.0.0.1:9090", f"127.0.0.1:{free_port()}").replace("build/release/bin", str(BINARY.parent))
        if block.language == "cpp":  # Compiled by the build.
            return [BINARY.parent / "readme_snippet", address]
        if block.language == "python":
            return [sys.executable, "-c", code]
        self.assertEqual(block.language, "sh")
        # Whoever types the lines is slower than the start of a server.
        listening = f"until (exec 3<>/dev/tcp/{address.replace(':', '/')}) 2>/dev/null; do sleep 0.05; done"
        return ["bash", "-euo", "pipefail", "-c", SHELL_SETUP + re.sub(r" &$", f" &\n{listening}", code, flags=re.MULTILINE)]

    def run_block(self, block):
        own_server = "attend-server" in block.code
        address = f"127.0.0.1:{free_port()}" if own_server else self.server.address
        # Python finds the package that README installs, what README's protoc line generated, and nothing else.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ATTEND_")}
        inherited["PYTHONPATH"] = str(BUILD_DIR / "python-site")
        return subprocess.run(
            self.command(block, address), cwd=self.directory, env=inherited | {"PATH": self.path, "ATTEND_ENDPOINTS": address},
            stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", timeout=120, check=False,
        )  # fmt: skip

    def check(self, blocks, name):
        for block in blocks:
            with self.subTest(f"{name}:{block.line}"):
                result = self.run_block(block)
                self.assertEqual(result.returncode, 0, f"{block.code}\n{result.stdout}\n{result.stderr}")
                for text in block.expected:
                    self.assertIn(text, result.stdout)


class ExamplesTest(ExamplesTestCase):
    def test_the_examples_work(self):
        blocks = [block for block in all_blocks(README) if block.run]
        self.assertEqual({block.language for block in blocks}, {"sh", "cpp", "python"}, "README has lost its examples")
        self.check(blocks, "README.md")


class PackageExamplesTest(ExamplesTestCase):
    def test_the_examples_of_the_python_package_work(self):
        blocks = [block for block in all_blocks(PACKAGE_README) if block.run]
        self.assertGreaterEqual(len(blocks), 4, "the package's README has lost its examples")
        self.check(blocks, "client/python/README.md")


class TextTest(unittest.TestCase):
    def test_calling_from_python_takes_five_lines(self):
        first = next(block for block in all_blocks(README) if block.language == "python")
        self.assertEqual(first.code.count("\n"), 5)

    def test_every_flag_of_the_table_exists_and_every_flag_is_in_the_table(self):
        text = subprocess.run([BINARY, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
        # In README `--max-connection-idle`, `-age` abbreviates what follows a common beginning.
        table = "\n".join(line for line in README.splitlines() if line.startswith("| `--"))
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
    RUN = "a\n<!-- run -->\n<!-- expect: 42 -->\n```python\nprint(42)\n```\n"
    NOT_RUN = "\n<!-- not run: fails -->\n```sh\nfalse\n```\n"

    def test_blocks_are_found_with_their_marks(self):
        expected = [Block(4, "python", "print(42)\n", True, ["42"]), Block(9, "sh", "false\n", False, [])]
        self.assertEqual(all_blocks(self.RUN + self.NOT_RUN), expected)

    def test_a_block_without_a_mark_is_an_error(self):
        for text in (
            "```sh\ntrue\n```\n",
            "<!-- run -->\n\n```sh\ntrue\n```\n",
            "<!-- not run: -->\n```sh\ntrue\n```\n",
            self.RUN + "```sh\ntrue\n```\n",
        ):
            with self.subTest(text), self.assertRaisesRegex(ValueError, "line .*needs the mark"):
                all_blocks(text)

    def test_a_mark_without_a_block_is_an_error(self):
        with self.assertRaisesRegex(ValueError, "3 marks, but 2 blocks"):
            all_blocks(self.RUN + "<!-- run -->\ntext\n" + self.NOT_RUN)


if __name__ == "__main__":
    unittest.main()
