"""docs/clients: each page is followed from an empty folder, word by word, against a real server.

A page's files are written, its commands are run in their order, in one shell, and the two programs must say what the programs of
all other pages say. `localhost:50051` stands for the server, `$ATTEND` for the sources. Builds fetch from the languages' package
registries. `make test-clients` runs all pages; CI runs those that CMakeLists.txt names.

    clients_test.py [-v] [ClientsTest.test_go ...]
"""

import os
import re
import shutil
import subprocess
import sys
import unittest

import numpy as np

from attend_testing import safetensors
from attend_testing.server import BUILD_DIR, SOURCE_DIR, TIMING, ServerTestCase

sys.path.append(str(SOURCE_DIR / "tests" / "integration"))
from readme_blocks import all_blocks, write_files

if "CI" in os.environ:  # A package index that is away for a minute is waited for.
    os.environ.setdefault("PIP_RETRIES", "8")

PAGES = SOURCE_DIR / "docs" / "clients"
NOTEBOOK = SOURCE_DIR / "tests" / "data" / "golden" / "notebook_5x64.safetensors"
OUT = BUILD_DIR / "clients"
# A build may have to fetch and compile hundreds of packages.
PATIENCE = 1500
# The most lines of the first program and of the one on all topics.
MOST_LINES = {"first": 40, "topics": 120}
# Codes are compared as plain(): each language spells them in its own way.
SAID = {
    "error": "INVALID_ARGUMENT INVALID_FIELD key.shape",
    "deadline": "DEADLINE_EXCEEDED",
    "cancelled": "CANCELLED",
    "limit": "RESOURCE_EXHAUSTED",
    "large": str(4 << 20),
    "stream": "1000",
    "health": "SERVING",
}
# What tonic says instead: see docs/clients/rust.md.
SAID_INSTEAD = {"rust": {"deadline": ("CANCELLED", "DEADLINE_EXCEEDED"), "limit": ("OUT_OF_RANGE",)}}


def blocks_of(name):
    return all_blocks((PAGES / f"{name}.md").read_text())


def expected_output():
    """The output of the notebook's layer for the embeddings that every page sends, in float64."""
    weights, _ = safetensors.load(NOTEBOOK)
    x = (np.arange(320) % 7 - 3).reshape(5, 64) / 4
    query, key, value = (x @ np.float64(weights[f"{n}.weight"]).T + weights[f"{n}.bias"] for n in ("query", "key", "value"))
    scores = np.exp(query @ key.T / 8)
    return scores / scores.sum(axis=1, keepdims=True) @ value


def plain(text):
    """DEADLINE_EXCEEDED and DeadlineExceeded, CANCELLED and Canceled are the same."""
    return re.sub("[_ ]", "", text).lower().replace("canceled", "cancelled")


class ClientsTest(ServerTestCase):
    def follow(self, name, environment=None):
        """What each command of the page writes, a block at a time."""
        folder = OUT / name
        shutil.rmtree(folder, ignore_errors=True)
        write_files(PAGES / f"{name}.md", folder)
        runs = [block for block in blocks_of(name) if block.run]
        script = "\nprintf '\\036'\n".join(block.code for block in runs).replace("localhost:50051", self.server.address)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ATTEND_", "PYTHON"))}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=folder, timeout=PATIENCE, check=False, capture_output=True, text=True,
            env=inherited | {"ATTEND": str(SOURCE_DIR)} | (environment or {}),
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, f"{name}.md:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        outputs = re.sub(r"\x1b\[[\d;]*m", "", done.stdout).split("\036")
        for block, output in zip(runs, outputs, strict=True):
            for text in block.expected:
                self.assertIn(text, output, f"{name}.md:{block.line}")
        return outputs

    def check(self, name, environment=None):
        said = dict(line.split(" ", 1) for line in self.follow(name, environment)[-1].splitlines() if " " in line)
        for topic, expected in SAID.items():
            allowed = SAID_INSTEAD.get(name, {}).get(topic, (expected,))
            self.assertIn(plain(said.get(topic, "")), map(plain, allowed), f"{name}: {topic}")
        self.assertRegex(said["timing"], TIMING)
        output = expected_output()
        first, last = map(float, said["layer"].split())
        np.testing.assert_allclose([first, last], [output[0, 0], output[4, 63]], atol=2e-6 * np.abs(output).max() + 2e-6)

    def test_python(self):
        self.check("python")
        (installed,) = (OUT / "python" / ".venv" / "lib").glob("*/site-packages/google/rpc")
        for name in ("status.proto", "error_details.proto"):
            ours = SOURCE_DIR / "proto" / "google" / "rpc" / name
            self.assertEqual(ours.read_bytes(), (installed / name).read_bytes(), f"{name} is that of googleapis")

    def test_go(self):
        found = subprocess.run([SOURCE_DIR / "scripts" / "find-go.sh"], capture_output=True, text=True, check=True)
        path = f"{found.stdout.strip()}:{os.environ['PATH']}"
        self.check("go", {"PATH": path})
        unformatted = subprocess.run(["gofmt", "-l", "first", "topics"], cwd=OUT / "go", capture_output=True, text=True,
                                     env=os.environ | {"PATH": path}, check=True)  # fmt: skip
        self.assertEqual(unformatted.stdout, "")

    def test_java(self):
        self.check("java")

    def test_node(self):
        self.check("node")

    def test_rust(self):
        # What was compiled before is used again.
        self.check("rust", {"CARGO_TARGET_DIR": str(OUT / "rust-target")})

    def test_cpp(self):
        prefix = OUT / "cpp-prefix"
        shutil.rmtree(prefix, ignore_errors=True)
        install = ["cmake", "--install", BUILD_DIR, "--component", "development", "--prefix", prefix]
        subprocess.run(install, check=True, capture_output=True)
        self.check_self_contained(prefix)
        ccache = {"CMAKE_CXX_COMPILER_LAUNCHER": "ccache"} if shutil.which("ccache") else {}
        self.check("cpp", {"CMAKE_PREFIX_PATH": str(prefix), "CMAKE_GENERATOR": "Ninja"} | ccache)

    def check_self_contained(self, prefix):
        """What is installed points at nothing of this tree, and the client brings nothing of the core."""
        targets = "".join(path.read_text() for path in prefix.rglob("attendTargets*.cmake"))
        self.assertIn("attend::client", targets)
        for stranger in (str(SOURCE_DIR), str(BUILD_DIR), "attend_core", "Eigen", "hwy"):
            self.assertNotIn(stranger, targets)
        headers = {str(path.relative_to(prefix)) for path in prefix.rglob("*.h")}
        self.assertIn("include/attend/client/lib/client.h", headers)
        self.assertEqual([name for name in headers if "/core/" in name or "/server/" in name], [])
        self.assertFalse((prefix / "bin").exists(), "programs are another component")


class PagesTest(unittest.TestCase):
    def test_every_page_has_two_short_programs_and_its_commands(self):
        pages = {page.stem for page in PAGES.glob("*.md")} - {"README"}
        tests = {name.removeprefix("test_") for name in dir(ClientsTest) if name.startswith("test_")}
        self.assertEqual(pages, tests)
        for page in sorted(pages):
            for program, most in MOST_LINES.items():
                # first.py, first/main.go, First.java, src/bin/first.rs
                (code,) = [block.code for block in blocks_of(page) if re.search(rf"\b{program}\b", block.file, re.IGNORECASE)]
                with self.subTest(f"{page}: {program}"):
                    self.assertLessEqual(code.count("\n"), most)


if __name__ == "__main__":
    unittest.main()
