"""Forty mistakes that people make with `attend`, and what each is told: cli_mistakes.toml holds them word by word.

Every command runs in examples/data against a server that has the layer `notebook`. ATTEND_UPDATE=1 writes the messages that the
commands get into the table, to be read by whoever changed them.
"""

import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import tomllib
import unittest

from attend_testing.server import BUILD_DIR, SOURCE_DIR, Server

TABLE = pathlib.Path(__file__).with_name("cli_mistakes.toml")
DATA = SOURCE_DIR / "examples" / "data"
# Words of gRPC and C++, and of the protocol where a flag or a file is meant.
FOREIGN = re.compile(r"INVALID_ARGUMENT|UNAVAILABLE|DEADLINE_EXCEEDED|NOT_FOUND:|std::|absl::|grpc|gRPC|ipv4:|\.cc|nullptr|TEXT|terminate")


class MistakesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="attend-mistakes-")
        cls.addClassCleanup(cls.folder.cleanup)
        cls.directory = pathlib.Path(cls.folder.name) / "data"
        shutil.copytree(DATA, cls.directory)
        cls.server = Server("--layer", f"notebook={DATA / 'layer.safetensors'}")
        cls.addClassCleanup(cls.server.stop)
        bound = socket.socket()  # And never listening, so that nothing else can listen there.
        cls.addClassCleanup(bound.close)
        bound.bind(("127.0.0.1", 0))
        cls.closed = f"127.0.0.1:{bound.getsockname()[1]}"

    def run_command(self, command):
        """Exit code and stderr, with the table's words for what differs from run to run."""
        path = f"{BUILD_DIR / 'bin'}:/usr/bin:/bin"
        done = subprocess.run(
            shlex.split(command.replace("CLOSED", self.closed)), cwd=self.directory, capture_output=True, text=True, check=False,
            timeout=60,
            env={"PATH": path, "ATTEND_ENDPOINTS": self.server.address, "HOME": self.folder.name, "LSAN_OPTIONS": "detect_leaks=0"},
        )  # fmt: skip
        said = done.stderr.replace(self.closed, "CLOSED").replace(self.server.address, "SERVER")
        return done.returncode, re.sub(r"(?m)^\S+Z (?=error )", "", said)  # The log's time.

    def test_each_mistake_is_told_in_the_words_of_the_table(self):
        table = tomllib.loads(TABLE.read_text())["mistake"]
        self.assertGreaterEqual(len(table), 40)
        for mistake in table:
            with self.subTest(mistake["command"]):
                code, said = self.run_command(mistake["command"])
                if os.environ.get("ATTEND_UPDATE"):
                    mistake |= {"code": code, "says": said}
                self.assertEqual((code, said), (mistake["code"], mistake["says"]))
                self.assertNotRegex(said, FOREIGN)
                self.assertNotEqual(code, 0)
        if os.environ.get("ATTEND_UPDATE"):
            TABLE.write_text("\n".join(entry(mistake) for mistake in table))


def entry(mistake):
    return f"[[mistake]]\ncommand = '''{mistake['command']}'''\ncode = {mistake['code']}\nsays = '''\n{mistake['says']}'''\n"


if __name__ == "__main__":
    unittest.main()
