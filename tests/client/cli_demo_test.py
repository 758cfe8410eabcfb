"""`attend demo`: a server of its own, the notebook's five tokens, and nothing left behind."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.request

import numpy as np

from attend_testing import oracle, safetensors
from attend_testing.server import BINARY, PATIENCE, SOURCE_DIR
from cli_harness import ATTEND, attend, attend_on_terminal, environment

DATA = SOURCE_DIR / "examples" / "data"


def alive(pid):
    try:
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid):
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class DemoTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="attend-demo-test-")
        self.addCleanup(folder.cleanup)
        self.temporary = folder.name

    def expected(self):
        """The weights by NumPy in float64, from the files that README shows."""
        x, layer = np.load(DATA / "x.npy"), safetensors.load(DATA / "layer.safetensors")[0]
        q, k, v = (oracle.project(x, layer[f"{name}.weight"], layer[f"{name}.bias"])[None, None] for name in ("query", "key", "value"))
        return oracle.attend(q, k, v).weights[0, 0]

    def test_it_shows_the_weights_of_five_tokens_and_says_what_is_next(self):
        run = attend("demo", env={"TMPDIR": self.temporary, "ATTEND_ENDPOINTS": "127.0.0.1:1", "ATTEND_LISTEN": "256.0.0.1:1"})
        self.assertEqual((run.code, run.err), (0, ""))
        tokens = (DATA / "tokens.txt").read_text().split()
        weights = self.expected()
        for token, row in zip(tokens, weights, strict=True):
            self.assertRegex(run.text, rf"(?m)^ *{token} \|" + " *".join(rf"{weight:.2f}." for weight in row))
            self.assertIn(f"{token} takes {100 * row.max():2.0f} % from {tokens[row.argmax()]}", run.text)
        self.assertIn("attend info", run.text)
        self.assertEqual(os.listdir(self.temporary), [], "nothing is left")
        address = re.search(r" on (127\.0\.0\.1:\d+)\.", run.text)[1]
        self.assertEqual(attend("health", "--endpoints", address).code, 4, "its server has ended")

    def test_on_a_terminal(self):
        run = attend_on_terminal("demo", env={"TERM": "xterm-256color", "LANG": "C.UTF-8", "TMPDIR": self.temporary})
        self.assertEqual(run.code, 0, run.text)
        self.assertRegex(run.text, r"\x1b\[48;5;\d+m")

    def test_a_page_for_the_browser_until_it_is_interrupted(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            demo = subprocess.Popen([ATTEND, "demo", "--page"], env=environment({"TMPDIR": self.temporary}),
                                    stdout=subprocess.PIPE, text=True)
            self.addCleanup(demo.stdout.close)
            self.addCleanup(demo.kill)
            self.assertRegex(demo.stdout.readline(), r"^Started .*attend-server on 127\.0\.0\.1:\d+\.\n$")
            url = re.search(r"^Open (http://127\.0\.0\.1:\d+/) in a browser", demo.stdout.readline())[1]
            with urllib.request.urlopen(url, timeout=PATIENCE) as page:
                self.assertIn(b"<html", page.read())
            (server,) = children(demo.pid)
            demo.send_signal(number)
            self.assertEqual(demo.wait(PATIENCE), 0)
            self.assertFalse(alive(server))
            self.assertEqual(os.listdir(self.temporary), [], "nothing is left")

    def test_the_server_is_found_on_the_path_and_its_absence_is_said(self):
        alone = pathlib.Path(self.temporary, "alone")
        alone.mkdir()
        shutil.copy(ATTEND, alone / "attend")
        run = attend("demo", program=str(alone / "attend"), env={"PATH": "/nowhere"})
        self.assertEqual(run.code, 2)
        self.assertEqual(run.err, f"attend: there is no attend-server in {alone} or on the PATH; install it, or build it\n")
        run = attend("demo", program=str(alone / "attend"), env={"PATH": f"/nowhere:{BINARY.parent}"})
        self.assertEqual(run.code, 0, run.err)
        (alone / "attend-server").write_text("#!/bin/sh\necho cannot do it >&2\nexit 3\n")
        (alone / "attend-server").chmod(0o755)
        run = attend("demo", program=str(alone / "attend"), env={"TMPDIR": self.temporary})
        self.assertEqual((run.code, run.err), (5, "attend: attend-server did not start:\n  cannot do it\n"))

    def attend_beside(self, name, script):
        """A copy of `attend` in a folder of its own, with a server that is this shell script."""
        folder = pathlib.Path(self.temporary, name)
        folder.mkdir()
        shutil.copy(ATTEND, folder / "attend")
        (folder / "attend-server").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "attend-server").chmod(0o755)
        return folder / "attend"

    def test_a_server_that_ends_is_noticed_where_nobody_is_told_of_children(self):
        """Some programs ignore SIGCHLD, and those that they start do too."""
        program = self.attend_beside("alone", "echo cannot do it >&2; exit 3")
        run = subprocess.run([program, "demo"], env=environment({"TMPDIR": self.temporary}), capture_output=True, text=True,
                             preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN), timeout=PATIENCE, check=False)
        self.assertEqual((run.returncode, run.stderr), (5, "attend: attend-server did not start:\n  cannot do it\n"))
        self.assertEqual(os.listdir(self.temporary), ["alone"], "nothing is left")

    def test_a_temporary_folder_that_is_none_is_said_so(self):
        file = pathlib.Path(self.temporary, "file")
        file.touch()
        run = attend("demo", env={"TMPDIR": str(file)})
        self.assertEqual((run.code, run.err), (5, "attend: there is no folder for temporary files: Not a directory\n"))

    def test_the_server_ends_with_a_demo_that_is_killed(self):
        slow = self.attend_beside("slow", "exec sleep 600")
        for number in (signal.SIGKILL, signal.SIGINT):
            demo = subprocess.Popen([slow, "demo"], env=environment({"TMPDIR": self.temporary}), stdout=subprocess.DEVNULL)
            end = time.monotonic() + PATIENCE
            while not children(demo.pid) and time.monotonic() < end:
                time.sleep(0.01)
            (server,) = children(demo.pid)
            demo.send_signal(number)
            demo.wait(PATIENCE)
            while alive(server) and time.monotonic() < end:
                time.sleep(0.01)
            self.assertFalse(alive(server))


if __name__ == "__main__":
    unittest.main()
