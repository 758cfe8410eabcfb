"""The .safetensors parser agrees with the Python package `safetensors` on valid, generated and damaged files.

What the package refuses attend refuses. attend may refuse more, for one of the reasons in STRICTER.
"""

import json
import os
import pathlib
import random
import struct
import subprocess
import tempfile
import unittest

import numpy as np
import safetensors
import safetensors.numpy

SOURCE = pathlib.Path(os.environ["ATTEND_SOURCE_DIR"])
TOOL = pathlib.Path(os.environ["ATTEND_BUILD_DIR"]) / "bin" / "checkpoint_tool"

# Parts of the reasons for which attend refuses files that the package takes, and why it does.
STRICTER = (
    "comes twice",  # Of two keys the package takes the last: other readers may take the first.
    "unknown key",  # The package skips keys that it does not know.
    "does not end with '}' and spaces",  # The format pads with spaces, the package skips all of JSON's blanks.
    "does not begin with '{'",  # As the format says; the package skips blanks here too.
    "at most 1048576 are read",  # A smaller limit.
    "more than 16384 tensors",
    "more than 32 axes",
    "a null stands",  # The package takes `"__metadata__": null` for none.
    "an array stands",  # And a tensor's description as an array of its three values.
)


def package_takes(data):
    try:
        safetensors.deserialize(data)
    except Exception:  # The package has one kind of error, and raises others from numbers that do not fit.
        return False
    return True


def framed(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def generated(rng):
    """A valid file of random tensors."""
    types = [np.float32, np.float64, np.float16, np.int8, np.int64, np.uint16, np.bool_]
    tensors = {}
    for i in range(rng.randrange(6)):
        shape = [rng.randrange(4) for _ in range(rng.randrange(4))]
        tensors[f"layer.{i}." + "é" * rng.randrange(2)] = np.zeros(shape, rng.choice(types))
    return safetensors.numpy.save(tensors, {"k": "v"} if rng.randrange(2) else None)


def damaged(data, rng):
    """One small change, mostly in the header, where it matters."""
    data, size = bytearray(data), len(data)
    (length,) = struct.unpack("<Q", data[:8])
    end = min(len(data), 8 + length) if rng.randrange(8) else len(data)
    at = rng.randrange(max(1, end))
    kind = rng.randrange(7)
    if kind == 0:
        data[at] = rng.randrange(256)
    elif kind == 1:
        data[at] = rng.choice(b'0123456789-.,:[]{}" e')
    elif kind == 2:
        del data[at : at + rng.randrange(1, 4)]
    elif kind == 3:
        data[at:at] = bytes(rng.choice(b'0123456789-.,:[]{}" \n') for _ in range(rng.randrange(1, 4)))
    elif kind == 4:
        data = data[: rng.randrange(len(data) + 1)]
    elif kind == 5:
        data += bytes(rng.randrange(1, 9))
    else:
        other = bytes(data[8:end]).replace(rng.choice([b"F32", b"F64", b"I8", b"BOOL"]), rng.choice([b"F4", b"BF16", b"F8_E5M2", b"X"]))
        return framed(other, bytes(data[end:]))
    if kind in (2, 3) and at >= 8 and rng.randrange(4):  # So that the length fits and the change itself is judged.
        data[:8] = struct.pack("<Q", max(0, length + len(data) - size))
    return bytes(data)


class SafetensorsVerdictTest(unittest.TestCase):
    def judge(self, files):
        """Compares the verdicts; returns how many of the files both take."""
        with tempfile.TemporaryDirectory(prefix="attend-verdict-") as folder:
            paths = []
            for i, data in enumerate(files):
                paths.append(pathlib.Path(folder, f"{i}.safetensors"))
                paths[-1].write_bytes(data)
            verdicts = []
            for i in range(0, len(paths), 500):
                done = subprocess.run([TOOL, "verdict", *paths[i : i + 500]], capture_output=True, check=True)
                verdicts += done.stdout.decode(errors="replace").splitlines()
        self.assertEqual(len(verdicts), len(files))
        taken = 0
        for data, verdict in zip(files, verdicts, strict=True):
            package = package_takes(data)
            if verdict == "ok":
                self.assertTrue(package, f"attend takes what the package refuses: {data[:400]!r}")
                taken += 1
            elif package:
                self.assertTrue(any(reason in verdict for reason in STRICTER), f"{verdict}: {data[:400]!r}")
        return taken

    def test_files_of_this_repository(self):
        corpus = [path.read_bytes() for path in (SOURCE / "tests/fuzz/corpus/safetensors").iterdir()]
        golden = [path.read_bytes() for path in (SOURCE / "tests/data/golden").glob("*.safetensors")]
        self.assertGreaterEqual(self.judge(corpus + golden), len(golden))

    def test_generated_files_are_taken(self):
        rng = random.Random(1)
        files = [generated(rng) for _ in range(300)]
        self.assertEqual(self.judge(files), len(files))

    def test_damaged_files(self):
        rng = random.Random(2)
        files = [damaged(generated(rng), rng) for _ in range(6000)]
        taken = self.judge(files)
        self.assertTrue(100 < taken < 5900, f"{taken} of {len(files)} damaged files are taken: the damage is no test")

    def test_the_reference_implementations_own_cases(self):
        one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
        files = [
            b"",
            b"\x02\x00",
            struct.pack("<Q", 2**64 - 1) + b"{}",
            struct.pack("<Q", 100_000_001) + b"{}",
            framed(b"{}"),
            framed(b"{}   "),
            framed(b" {}"),
            framed(b"{}\n"),
            framed(b"[]"),
            framed(b"\xff{}"),
            framed({"x": one}, b"abcd"),
            framed({"x": one}, b"abc"),
            framed({"x": one}, b"abcde"),
            framed({"x": one, "__metadata__": {"a": 1}}, b"abcd"),
            framed({"x": one, "__metadata__": None}, b"abcd"),
            framed(b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"abcd"),
            framed({"x": {**one, "shape": [2**62, 4]}}, b"abcd"),
            framed({"x": {**one, "shape": [2**63, 2]}}, b"abcd"),
            framed({"x": {**one, "shape": [0, 2**40, 2**40], "data_offsets": [0, 0]}}),
            framed({"x": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, b"a"),
            framed({"x": {"dtype": "F4", "shape": [1], "data_offsets": [0, 1]}}, b"a"),
            framed({"x": {"dtype": "F8_E4M3", "shape": [3], "data_offsets": [0, 3]}}, b"abc"),
            framed({"x": one, "y": {**one, "data_offsets": [8, 12]}}, b"abcd" * 3),
            framed({"x": one, "y": {**one, "data_offsets": [2, 6]}}, b"abcdef"),
            framed({"x": one, "y": one}, b"abcd"),
            framed({"x": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, b"abcd"),
            framed({"x": {**one, "more": 1}}, b"abcd"),
        ]
        self.judge(files)


if __name__ == "__main__":
    unittest.main()
