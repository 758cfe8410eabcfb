"""Runs the examples of README, of docs/ and of the Python package as a reader would: each document in one clean shell, in order.

A session knows what README's Start says (its blocks up to the server's start) and then its document's blocks, and nothing
else: an environment without variables of ours, a folder with what git keeps, and no file that an earlier block did not
make. Three things are not as they stand, so that tests do not disturb each other: ports (`localhost:50051` and the others
become free ones, and variables tell them to commands that name none), Python's packages (in PYTHONPATH instead of a virtual
environment) and grpcurl, which is no package of Debian's: scripts/find-grpcurl.sh builds it; where that is impossible,
attend_testing.grpcurl stands in for it.
"""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

import grpc

from attend_testing.server import BINARY, BUILD_DIR, SOURCE_DIR
from readme_blocks import MARK, Block, all_blocks, shell_script, waiting_for_servers

README = (SOURCE_DIR / "README.md").read_text()
# Those with examples; a document of docs/ that has blocks to run and is not here fails DocumentsTest.
DOCUMENTS = ["README.md", "client/python/README.md", "docs/cli.md", "docs/configuration.md", "docs/deployment.md", "docs/layers.md",
             "docs/page.md", "docs/protocol.md"]  # fmt: skip
# Whoever writes these has tests of their own for them.
TESTED_ELSEWHERE = ["docs/clients", "docs/decisions", "docs/packages.md"]
LEAKS = SOURCE_DIR / "tests" / "client" / "leaks.supp"  # Of libraries that the commands use.


def kept_port():
    """A socket on a port that nobody else is given meanwhile. A server that asks for just this one may still listen on it."""
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    return kept


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


def start_of_readme():
    """README's blocks that a reader has run before any other page: up to the one that starts the server."""
    blocks = [block for block in all_blocks(README) if block.run]
    last = next(i for i, block in enumerate(blocks) if "attend-server" in block.code)
    return blocks[: last + 1]


class Session:
    """A reader's shell, as a script, and the folder in which it runs."""

    def __init__(self, directory):
        self.clone = directory / "attend"
        self.clone.mkdir()
        for entry in SOURCE_DIR.iterdir():
            if entry.name not in ("build", "examples", ".git", ".venv"):
                (self.clone / entry.name).symlink_to(entry)
        shutil.copytree(SOURCE_DIR / "examples", self.clone / "examples")  # Blocks write there.
        (self.clone / "build").mkdir()
        (self.clone / "build" / "release").symlink_to(BUILD_DIR)
        (directory / "bin").mkdir()
        self.grpcurl = grpcurl_directory(directory / "bin")
        self.kept = {}
        self.address = f"127.0.0.1:{self.port('50051')}"

    def port(self, written):
        """The free port that stands for one of a document's, until close()."""
        if written not in self.kept:
            self.kept[written] = kept_port()
        return self.kept[written].getsockname()[1]

    def close(self):
        for kept in self.kept.values():
            kept.close()

    def environment(self):
        sanitizers = {name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS")}
        return sanitizers | {
            "LSAN_OPTIONS": f"suppressions={LEAKS}:print_suppressions=0",
            "HOME": str(self.clone),
            "LANG": "C.UTF-8",
            "PATH": f"{self.grpcurl}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(BUILD_DIR / "python-site"),
            "ATTEND_ENDPOINTS": self.address,
            "ATTEND_LISTEN": self.address,
        }

    def lines(self, block):
        code = re.sub(r"(localhost|127\.0\.0\.1):(\d+)", lambda found: f"{found[1]}:{self.port(found[2])}", block.code)
        if block.language == "cpp":  # Compiled by the build.
            return f"readme_snippet {self.address}\n"
        if block.language == "python":
            return f"'{sys.executable}' - <<'PYTHON'\n{code}PYTHON\n"
        assert block.language == "sh", f"line {block.line}: nobody knows how to run {block.language}"
        return waiting_for_servers(code, self.address)

    def run(self, blocks):
        """What each block wrote to stdout, and the shell's end; blocks behind one that failed are missing."""
        script = shell_script(map(self.lines, blocks))
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-c", script], cwd=self.clone, env=self.environment(), stdin=subprocess.DEVNULL,
            capture_output=True, encoding="utf-8", errors="replace", timeout=300, check=False,
        )  # fmt: skip
        return done.stdout.split(MARK)[1:], done


class ExamplesTest(unittest.TestCase):
    def check(self, name):
        blocks = [block for block in all_blocks((SOURCE_DIR / name).read_text()) if block.run]
        known = [] if name == "README.md" else start_of_readme()
        with tempfile.TemporaryDirectory() as directory, contextlib.closing(Session(pathlib.Path(directory))) as session:
            outputs, done = session.run(known + blocks)
        self.assertEqual(done.returncode, 0, f"{name}, in the block that begins\n{(known + blocks)[len(outputs) - 1].code}\n{done.stderr}")
        for block, output in zip(blocks, outputs[len(known) :], strict=True):
            for text in block.expected:
                self.assertIn(text, output, f"{name}:{block.line}\n{block.code}")

    def test_the_examples_of_each_document_work_in_a_clean_shell(self):
        for name in DOCUMENTS:
            with self.subTest(name):
                self.check(name)


class StubsTest(unittest.TestCase):
    def test_the_documented_commands_find_the_documented_stubs(self):
        """The sentence encoder's need a checkpoint, and are not run; what they import must be there all the same."""
        protocol = (SOURCE_DIR / "docs" / "protocol.md").read_text()
        generate = next(block.code for block in all_blocks(protocol) if block.code.startswith("protoc "))
        with tempfile.TemporaryDirectory() as directory:
            for name in ("proto", "examples"):
                (pathlib.Path(directory) / name).symlink_to(SOURCE_DIR / name)
            environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
            for name in ("docs/layers.md", "examples/sentence_encoder/README.md"):
                command = re.search(r"^.*examples/sentence_encoder/main\.py", (SOURCE_DIR / name).read_text(), re.MULTILINE)[0]
                for package in ({}, {"PYTHONPATH": str(BUILD_DIR / "python-site")}):
                    done = subprocess.run(
                        ["bash", "-euc", f"{generate}{command} --help"], cwd=directory, env=environment | package,
                        capture_output=True, text=True, timeout=60, check=False,
                    )  # fmt: skip
                    with self.subTest(name, package=bool(package)):
                        self.assertEqual(done.returncode, 0, done.stderr)


class DocumentsTest(unittest.TestCase):
    def test_readme_shows_each_language(self):
        self.assertEqual({block.language for block in all_blocks(README) if block.run}, {"sh", "cpp", "python"})

    def test_every_document_with_examples_is_run(self):
        found = ["README.md", "client/python/README.md"]
        for path in sorted((SOURCE_DIR / "docs").rglob("*.md")):
            name, text = str(path.relative_to(SOURCE_DIR)), path.read_text()
            if name.startswith(tuple(TESTED_ELSEWHERE)) or not re.search(r"^```(sh|python)$", text, re.MULTILINE):
                continue
            if any(block.run for block in all_blocks(text)):
                found.append(name)
        self.assertLessEqual(set(found), set(DOCUMENTS))

    def test_every_link_of_readme_and_docs_leads_somewhere(self):
        for path in [SOURCE_DIR / "README.md", *sorted((SOURCE_DIR / "docs").glob("*.md"))]:
            for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", path.read_text()):
                with self.subTest(f"{path.name}: {target}{anchor}"):
                    file = (path.parent / target).resolve() if target else path
                    self.assertTrue(file.exists())
                    if anchor:
                        self.assertIn(anchor[1:], anchors(file.read_text()))


def anchors(text):
    """What GitHub makes of the headings: lower case, spaces as dashes, other punctuation left out."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


class TextTest(unittest.TestCase):
    def test_calling_from_python_takes_five_lines(self):
        first = next(block for block in all_blocks(README) if block.language == "python")
        self.assertEqual(first.code.count("\n"), 5)

    def test_every_reason_is_in_the_table_of_reasons(self):
        header = (SOURCE_DIR / "server" / "base" / "protocol.h").read_text().split("namespace reason {")[1]
        constants = set(re.findall(r'constexpr char k\w+\[\] =\s+"([A-Z_]+)";', header))
        constants |= set(re.findall(r'\{"([A-Z_]+)", ', (SOURCE_DIR / "core" / "base" / "error.cc").read_text()))
        document = (SOURCE_DIR / "docs" / "protocol.md").read_text()
        rows = re.findall(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \|(.*)$", document, re.MULTILINE)
        # An error without a reason has the name of its code.
        self.assertEqual({reason for reason, code, _ in rows if reason != code}, constants)
        self.assertEqual({code for _, code, _ in rows} - {code.name for code in grpc.StatusCode}, set())
        flags = {flag for *_, rest in rows for flag in re.findall(r"`(--[a-z-]+)`", rest)}
        self.assertEqual(flags - existing_flags(), set(), "in the table, but not in --help")

    def test_every_flag_of_the_table_exists_and_every_flag_is_in_the_table(self):
        # There `--max-connection-idle`, `-age` abbreviates what follows a common beginning.
        document = (SOURCE_DIR / "docs" / "configuration.md").read_text()
        table = "\n".join(line for line in document.splitlines() if line.startswith("| `--"))
        self.assertTrue(table, "docs/configuration.md has lost its table of flags")
        existing = existing_flags()
        about_flags = {"--help", "--version", "--config", "--print-config", "--check-config"}
        written = set(re.findall(r"`(--[a-z-]+)`", table))
        self.assertEqual(written - existing, set(), "in the table, but not in --help")
        abbreviated = {flag for flag in existing - written if any(f"`-{tail}`" in table for tail in tails(flag))}
        self.assertEqual(existing - written - abbreviated - about_flags, set(), "in --help, but not in the table")


def existing_flags():
    """Those of attend-server."""
    text = subprocess.run([BINARY, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
    return set(re.findall(r"^\s+(?:-\w,)?(--[a-z-]+)", text, re.MULTILINE))


def tails(flag):
    """--a-b-c -> b-c, c."""
    parts = flag[2:].split("-")
    return ["-".join(parts[start:]) for start in range(1, len(parts))]


class ExtractionTest(unittest.TestCase):
    RUN = "a\n<!-- run -->\n<!-- expect: 42 -->\n```python\nprint(42)\n```\n"
    NOT_RUN = "\n<!-- not run: fails -->\n```sh\nfalse\n```\n"

    def test_blocks_are_found_with_their_marks(self):
        expected = [Block(4, "python", "print(42)\n", True, ["42"]), Block(9, "sh", "false\n", False, [], reason="fails")]
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
