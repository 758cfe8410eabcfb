"""Runs the built `attend` command: with pipes, and on a terminal of its own."""

import dataclasses
import io
import json
import os
import pathlib
import pty
import re
import select
import subprocess
import tempfile
import unittest

import numpy as np

from attend_testing.server import BUILD_DIR, PATIENCE, SOURCE_DIR, Server

ATTEND = str(BUILD_DIR / "bin" / "attend")
VERIFY = str(BUILD_DIR / "bin" / "attend-verify")
GOLDEN = SOURCE_DIR / "tests" / "data" / "golden"


@dataclasses.dataclass
class Run:
    code: int
    out: bytes
    err: str
    arrays: list = dataclasses.field(default_factory=list)  # Of attend_npz.

    @property
    def text(self):
        return self.out.decode()


def environment(extra=None):
    """This process's environment without what would steer the command, and with `extra`."""
    steering = ("ATTEND_", "NO_COLOR", "COLORTERM", "TERM", "COLUMNS", "LC_", "LANG")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    leaks = f"suppressions={pathlib.Path(__file__).with_name('leaks.supp')}:print_suppressions=0"
    return {**clean, "LSAN_OPTIONS": leaks, **(extra or {})}


def attend(*arguments, env=None, stdin=b"", program=ATTEND):
    """Runs with pipes."""
    done = subprocess.run([program, *map(str, arguments)], input=stdin, capture_output=True, env=environment(env), timeout=PATIENCE,
                          check=False)
    return Run(done.returncode, done.stdout, done.stderr.decode())


def attend_on_terminal(*arguments, env=None, once=None):
    """Runs with stdout and stderr on a terminal; `out` holds both, with \\n at line ends.

    With once=(pattern, action), does the action when the pattern has appeared.
    """
    controller, terminal = pty.openpty()
    process = subprocess.Popen([ATTEND, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal,
                               env=environment(env))
    os.close(terminal)
    out = b""
    while select.select([controller], [], [], PATIENCE)[0]:
        try:
            part = os.read(controller, 65536)
        except OSError:  # The other side is closed.
            break
        if not part:
            break
        out += part
        if once and re.search(once[0], out.decode(errors="replace")):
            once[1]()
            once = None
    os.close(controller)
    return Run(process.wait(PATIENCE), out.replace(b"\r\n", b"\n"), "")


def npy_array(data):
    """The array of a .npy file, which ends with it."""
    file = io.BytesIO(data)
    array = np.load(file)
    assert file.tell() == len(data), "something follows the array"
    return array


def bfloat16(array):
    """Rounded to nearest, ties to even, as the upper halves of float32: what write_safetensors takes for BF16."""
    bits = np.asarray(array, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def write_safetensors(path, tensors):
    """{name: array}, written by the format's description and not by our writer; uint16 stands for bfloat16."""
    import struct

    names = {"float32": "F32", "float64": "F64", "float16": "F16", "uint16": "BF16", "int64": "I64", "bool": "BOOL"}
    header, data = {}, b""
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": names[array.dtype.name], "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


class CliTestCase(unittest.TestCase):
    """Tests that share one server and have a directory each."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.stop)
        cls.env = {"ATTEND_ENDPOINTS": cls.server.address}

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="attend-cli-")
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.rng = np.random.default_rng(11)

    def save(self, name, array):
        path = self.directory / name
        np.save(path, array)
        return path

    def random(self, *shape):
        return self.rng.standard_normal(shape, dtype=np.float32)

    def attend(self, *arguments, **keywords):
        return attend(*arguments, env={**self.env, **keywords.pop("env", {})}, **keywords)

    def attend_ok(self, *arguments, **keywords):
        run = self.attend(*arguments, **keywords)
        self.assertEqual(run.code, 0, run.err)
        return run

    def attend_npz(self, *arguments, **keywords):
        """Has the tensors written to a .npz file, which NumPy reads: `arrays`, in the order of the file."""
        path = self.directory / "arrays.npz"
        run = self.attend_ok(*arguments, "--output", path, **keywords)
        self.assertEqual(run.out, b"", "stored, so not printed")
        with np.load(path) as file:
            run.arrays = [file[name] for name in file.files]
        path.unlink()
        return run

    def verify(self, *arguments):
        """Runs attend-verify."""
        return self.attend(*arguments, program=VERIFY)

    def comparisons(self, *arguments):
        """What attend-verify says of each tensor; it must find nothing wrong."""
        run = self.verify(*arguments, "-o", "json")
        self.assertEqual(run.code, 0, f"{run.err}\n{run.text}")
        return json.loads(run.out)["comparisons"]

    def assert_fails(self, run, code, *needles):
        self.assertEqual(run.code, code, f"{run.err}\n{run.out[:400]}")
        self.assertEqual(run.out, b"", "errors go to stderr alone")
        for needle in needles:
            self.assertRegex(run.err, re.compile(needle))
