"""What the shell sees of `attend`: exit codes, streams, environment, terminals, pictures."""

import json
import resource
import signal
import socket
import struct
import subprocess
import tempfile
import unittest
import zlib

import numpy as np

import cli_harness
from attend_testing.server import PATIENCE, Server, is_sanitized
from cli_harness import ATTEND, GOLDEN, attend, attend_on_terminal, environment, npy_arrays

NOTEBOOK = GOLDEN / "notebook_5x64.safetensors"
NOTEBOOK_FLAGS = ("compute", "--input", f"{NOTEBOOK}:x", "--layer", NOTEBOOK)
COLORS = {"TERM": "xterm-256color", "LANG": "en_US.UTF-8"}


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class UsageTest(unittest.TestCase):
    def test_help_and_version(self):
        run = attend("--version")
        self.assertEqual((run.code, run.err), (0, ""))
        self.assertRegex(run.text, r"^attend \d+\.\d+\.\d+\n$")
        for command in ([], ["compute"], ["sdpa"], ["info"], ["health"], ["layers"]):
            run = attend(*command, "--help")
            self.assertEqual((run.code, run.err), (0, ""))
            self.assertIn("Usage: attend", run.text)
            self.assertIn("Exit codes: 0 success", run.text)
            if command:
                self.assertIn("ATTEND_ENDPOINTS", run.text)

    def test_wrong_usage_ends_with_2_and_a_word_about_it(self):
        x = f"{NOTEBOOK}:x"
        cases = (
            ([], "subcommand is required"),
            (["frobnicate"], "frobnicate"),
            (["compute"], "--input is required"),
            (["compute", "--input", x, "--no-such-flag"], "--no-such-flag"),
            (["compute", "--input", x, "--scale", "big"], "--scale"),
            (["compute", "--input", x, "--causal", "--causal-top-left"], "excludes"),
            (["compute", "--input", x, "--return", "outputs"], "--return"),
            (["compute", "--input", x, "-o", "yaml"], "yaml"),
            (["compute", "--input", x, "--timeout", "0s"], "not a positive duration"),
            (["compute", "--input", x, "--timeout", "inf"], "not a positive duration"),
            (["compute", "--input", x, "--timeout", "soon"], "not a positive duration"),
            (["compute", "--input", x, "--endpoints", "nowhere"], "not host:port"),
            (["compute", "--input", x, "--tls-cert", "a.pem"], "--tls-key"),
            (["compute", "--input", x, "--tls-ca", "/no/such.pem"], "/no/such.pem"),
            (["compute", "--input", x, "--num-heads", "2"], "belong to a --layer"),
            (["compute", "--input", x, "--output", "x.csv"], "expected a .npy or .safetensors"),
            (["compute", "--input", x, "--weights", "--output", "x.npy"], "holds one tensor"),
            (["compute", "--input", x, "--output-dir", "/no/such"], "is not a directory"),
            (["compute", "--input", x, "--plot", "x.jpg"], "expected a .png or .svg file"),
            (["compute", "--input", x, "--labels", "x.txt"], "belong to --show or --plot"),
            (["compute", "--input", x, "--color-scale", "log"], "belong to --show or --plot"),
            (["compute", "--input", x, "--show", "--labels", "/no/such.txt"], "/no/such.txt"),
            (["compute", "--input", x, "--verify"], "--verify: use attend-verify"),
            (["sdpa", "--query", x, "--key", x, "--value", x, "--expect", "y.npy"], "--expect: use attend-verify"),
            (["compute", "--input", x, "--input", x, "--output", "o.npy"], "--output-dir"),
            (["compute", "--input", x, "--input", x, "--output-dir", "/tmp"], "two inputs would both"),
            (["compute", "--input", x, "--dtype", "int8"], "--dtype"),
            (["compute", "--input", x, "--top-k", "0"], "--top-k"),
            (["compute", "--input", x, "--top-k", "1048577"], "--top-k"),
            (["compute", "--input", x, "--return", "top_attention_weights"], "need --top-k N"),
            (["compute", "--input", x, "--window-left", "1.5"], "--window-left 1.5: expected an integer"),
            (["compute", "--input", x, "--num-heads", "0"], "--num-heads"),
            (["compute", "--input", x, "--top-k", "2", "--output", "x.npy"], "holds one tensor, but 3 are returned"),
            (["compute", "--input", x, "--cumulative-query-lengths", "0,two"], "'0,two' is neither"),
            (["compute", "--input", x, "--cumulative-key-lengths", x], "expected integers"),
            (["compute", "--input", x, "--partial", "part.safetensors"], "--partial"),
            (["sdpa", "--query", x, "--key", x, "--value", x, "--partial", "part.npy"], "--partial part.npy: expected a .safetensors file"),
            (["sdpa", "--query", x, "--key", x, "--value", x, "--partial", str(NOTEBOOK)], "there is no tensor 'log_sum_exp'"),
            (["sdpa", "--query", "q.npy"], "--key is required"),
            (["info", "-o", "npy"], "npy"),
        )
        for arguments, needle in cases:
            with self.subTest(" ".join(arguments)):
                run = attend(*arguments, env={"ATTEND_ENDPOINTS": f"127.0.0.1:{closed_port()}"})
                self.assertEqual(run.code, 2, run.err)
                self.assertEqual(run.out, b"")
                self.assertIn(needle, run.err)

    def test_what_the_flag_parser_finds_is_said_as_everything_else(self):
        for arguments in ([], ["frobnicate"], ["compute"], ["info", "--no-such-flag"], ["info", "--timeout", "0s"]):
            with self.subTest(" ".join(arguments)):
                self.assertRegex(attend(*arguments).err, r"^attend: .*\n")

    def test_the_formats_of_other_commands_are_no_business_of_this_one(self):
        """A container may set ATTEND_FORMAT for `compute`, and its health check must not fail for that."""
        nowhere = {"ATTEND_ENDPOINTS": f"127.0.0.1:{closed_port()}"}
        for command in ("info", "health"):
            self.assertEqual(attend(command, env=nowhere | {"ATTEND_FORMAT": "npy"}).code, 4)
            self.assertEqual(attend(command, env=nowhere | {"ATTEND_FORMAT": "yaml"}).code, 2, "not a form of any")
            self.assertEqual(attend(command, "-o", "npy", env=nowhere).code, 2, "asked for here")

    def test_the_servers_certificate_is_not_the_clients(self):
        """In a container that is configured by environment, ATTEND_TLS_CERT and ATTEND_TLS_KEY are the server's."""
        nowhere = {"ATTEND_ENDPOINTS": f"127.0.0.1:{closed_port()}"}
        run = attend("health", env=nowhere | {"ATTEND_TLS_CERT": "/no/server.pem", "ATTEND_TLS_KEY": "/no/server.key"})
        self.assertEqual(run.code, 4, run.err)
        run = attend("health", env=nowhere | {"ATTEND_CLIENT_TLS_CERT": "/no/c.pem", "ATTEND_CLIENT_TLS_KEY": "/no/c.key"})
        self.assertEqual(run.code, 2)
        self.assertIn("/no/c.pem", run.err)

    @unittest.skipIf(is_sanitized(), "AddressSanitizer needs all the address space there is")
    def test_memory_that_runs_out_is_not_the_users_fault(self):
        with tempfile.NamedTemporaryFile(suffix=".npy") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 16, 1 << 14)})
            file.truncate(file.tell() + (4 << 30))  # Zeros that take no space on the disk.
            limit = 1 << 30
            done = subprocess.run(
                [ATTEND, "compute", "--input", file.name, "--endpoints", f"127.0.0.1:{closed_port()}"],
                capture_output=True, env=environment(), check=False, timeout=PATIENCE,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
            )  # fmt: skip
        self.assertEqual((done.returncode, done.stdout), (5, b""), done.stderr)
        self.assertIn(b"attend: out of memory", done.stderr)

    def test_names_that_nobody_knows_end_with_4(self):
        run = attend("info", "--endpoints", "127.0.0.1:1,name.invalid:2")
        self.assertEqual(run.code, 4)
        self.assertIn("cannot resolve 'name.invalid'", run.err)

    def test_files_that_cannot_be_used_end_with_2_and_their_name(self):
        cases = (
            ("/no/such.npy", "cannot open /no/such.npy: No such file"),
            ("x.txt", "is neither"),
            (str(NOTEBOOK), "say which"),
            (f"{NOTEBOOK}:y", "there is no tensor 'y'; there are: attention_weights"),
            ("-", "standard input: the .npy header is incomplete"),
        )
        for source, needle in cases:
            with self.subTest(source):
                run = attend("compute", "--input", source)
                self.assertEqual(run.code, 2, run.err)
                self.assertIn(needle, run.err)

    def test_a_file_without_a_layer_says_what_was_looked_for(self):
        path = GOLDEN / "mha_self_causal.safetensors"
        run = attend("compute", "--input", f"{path}:query", "--layer", f"{path}:encoder")
        self.assertEqual(run.code, 2)
        for word in ("query.weight", "q_proj.weight", "in_proj_weight", "'encoder.'", "the file has: attention_weights_f64"):
            self.assertIn(word, run.err)

    def test_no_server_ends_with_4(self):
        for arguments in (NOTEBOOK_FLAGS, ("info",), ("health",), ("health", "--watch")):
            with self.subTest(arguments[0]):
                run = attend(*arguments, "--endpoints", f"127.0.0.1:{closed_port()}")
                self.assertEqual((run.code, run.out), (4, b""))
                self.assertIn("UNAVAILABLE", run.err)

    def test_a_deadline_that_passes_ends_with_4(self):
        with socket.socket() as silent:  # Takes connections and says nothing.
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            run = attend(*NOTEBOOK_FLAGS, "--endpoints", f"127.0.0.1:{silent.getsockname()[1]}", "--timeout", "300ms")
        self.assertEqual(run.code, 4)
        self.assertIn("DEADLINE_EXCEEDED", run.err)


class ServerTest(cli_harness.CliTestCase):
    def test_a_refusal_ends_with_3_and_all_that_the_server_said(self):
        q, k = self.save("q.npy", self.random(2, 3)), self.save("k.npy", self.random(2, 4))
        self.assert_fails(
            self.attend("sdpa", "--query", q, "--key", k, "--value", k),
            3, r"INVALID_ARGUMENT: ", r"reason: [A-Z_]+ \(attend.v1\)", r"field key",
        )  # fmt: skip

    def test_a_limit_is_named_with_its_flag(self):
        with Server("--max-request-bytes", "1000") as small:
            run = attend(*NOTEBOOK_FLAGS, "--endpoints", small.address)
        self.assert_fails(run, 3, "RESOURCE_EXHAUSTED", "--max-request-bytes")

    def test_the_first_error_ends_a_batch(self):
        good, bad = self.save("good.npy", self.random(2, 3)), self.save("bad.npy", self.random(2))
        run = self.attend("compute", "--input", good, "--input", bad, "--input", good)
        self.assertEqual(run.code, 3, run.err)
        self.assertEqual(len(npy_arrays(run.out)), 1, "what was computed before is handed over")

    def test_info(self):
        run = self.attend_ok("info", "-o", "json")
        info = json.loads(run.out)
        self.assertGreaterEqual(info["num_threads"], 1)
        types = ["FLOAT32", "FLOAT64", "FLOAT16", "BFLOAT16"]
        self.assertLessEqual(set(types), set(info["supported_data_types"]))
        self.assertRegex(self.attend_ok("info").text, rf"(?m)^supported data types +{', '.join(info['supported_data_types'])}$")
        self.assertEqual(info["limits"]["max_queued_requests"], 64)
        self.assertRegex(self.attend_ok("info").text, rf"(?m)^version +{info['version']}$")

    def test_health(self):
        self.assertEqual(self.attend_ok("health").text, "SERVING\n")
        self.assertEqual(self.attend_ok("health", "--service", "readiness").text, "SERVING\n")
        run = self.attend_ok("health", "-o", "json", "--service", "attend.v1.AttentionService")
        self.assertEqual(json.loads(run.out), {"service": "attend.v1.AttentionService", "status": "SERVING"})
        self.assert_fails(self.attend("health", "--service", "nobody"), 3, "NOT_FOUND")

    def test_watch_sees_a_server_drain(self):
        with Server("--drain-wait", "1h") as server:
            command = [ATTEND, "health", "--watch", "--endpoints", server.address]
            watch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment())
            self.addCleanup(watch.stdout.close)
            self.assertEqual(watch.stdout.readline(), b"SERVING\n")
            server.terminate()
            self.assertEqual(watch.stdout.readline(), b"NOT_SERVING\n")
            server.terminate()  # Ends the wait.
            self.assertIn(watch.wait(PATIENCE), (3, 4))
            server.wait()

    def test_watch_ends_by_interrupt(self):
        watch = subprocess.Popen([ATTEND, "health", "--watch"], stdout=subprocess.PIPE, env=environment(self.env))
        self.addCleanup(watch.stdout.close)
        self.assertEqual(watch.stdout.readline(), b"SERVING\n")
        watch.send_signal(signal.SIGINT)
        self.assertEqual(watch.wait(PATIENCE), -signal.SIGINT)

    def test_flags_win_over_the_environment_and_the_environment_over_defaults(self):
        nowhere = f"127.0.0.1:{closed_port()}"
        self.assertEqual(attend("health", env=self.env).code, 0)
        self.assertEqual(attend("health", env={"ATTEND_ENDPOINTS": nowhere}).code, 4)
        self.assertEqual(attend("health", "--endpoints", self.server.address, env={"ATTEND_ENDPOINTS": nowhere}).code, 0)
        self.assertEqual(attend("health", env={"ATTEND_ENDPOINTS": f"{nowhere},{self.server.address}"}).code, 0)
        self.assertIn("the timeout 'never'", self.attend("health", env={"ATTEND_TIMEOUT": "never"}).err)
        json.loads(self.attend_ok("info", env={"ATTEND_FORMAT": "json"}).out)

    def test_the_common_flags_stand_on_either_side_of_the_command(self):
        flags = ("--endpoints", self.server.address, "--timeout", "20s")
        for arguments in ((*flags, "health"), ("health", *flags), (*flags[:2], "health", *flags[2:])):
            run = attend(*arguments)
            self.assertEqual((run.code, run.text), (0, "SERVING\n"), run.err)
        nowhere = {"ATTEND_ENDPOINTS": f"127.0.0.1:{closed_port()}"}
        self.assertEqual(attend(*flags, "health", env=nowhere).code, 0, "also there a flag wins over the environment")
        for arguments in (["frobnicate"], ["frobnicate", "--help"], [*flags, "frobnicate"]):
            run = attend(*arguments)
            self.assertEqual((run.code, run.err), (2, "attend: there is no command 'frobnicate'; see attend --help\n"))

    def test_a_pipe_carries_the_answer_alone(self):
        run = self.attend_ok(*NOTEBOOK_FLAGS, "--show", "--timing")
        npy_arrays(run.out)
        for word in ("attention_weights", "round trip"):
            self.assertIn(word, run.err)

    def test_a_full_disk_is_an_error(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([ATTEND, *map(str, NOTEBOOK_FLAGS)], stdout=full, stderr=subprocess.PIPE, env=environment(self.env),
                                  check=False)
        self.assertEqual(done.returncode, 5)
        self.assertIn(b"cannot write", done.stderr)
        run = self.attend(*NOTEBOOK_FLAGS, "--output", "/no/such/directory/x.npy")
        self.assert_fails(run, 5, "cannot create /no/such/directory/x.npy")


class TerminalTest(cli_harness.CliTestCase):
    def on_terminal(self, *arguments, **env):
        run = attend_on_terminal(*arguments, env={**self.env, **env})
        self.assertEqual(run.code, 0, run.out)
        return run.text

    def test_a_terminal_gets_a_table(self):
        self.assertRegex(self.on_terminal(*NOTEBOOK_FLAGS), r"^output  float32 \[5, 64\]\n")

    def test_a_terminal_gets_no_bytes(self):
        run = attend_on_terminal(*NOTEBOOK_FLAGS, "-o", "npy", env=self.env)
        self.assertEqual(run.code, 2)
        self.assertIn("would write bytes to the terminal", run.text)

    def test_colours_follow_what_the_terminal_can_do(self):
        for env, pattern in (
            (COLORS | {"COLORTERM": "truecolor"}, r"\x1b\[48;2;\d+;\d+;\d+m"),
            (COLORS, r"\x1b\[48;5;\d+m"),
            (COLORS | {"NO_COLOR": "1", "COLORTERM": "truecolor"}, None),
            (COLORS | {"TERM": "dumb"}, None),
            ({"TERM": "vt100"}, None),
            ({}, None),
        ):
            with self.subTest(env):
                text = self.on_terminal(*NOTEBOOK_FLAGS, "--show", **env)
                self.assertIn("5 queries (down) x 5 keys (across)", text)
                if pattern:
                    self.assertRegex(text, pattern)
                    self.assertRegex(text, r"\x1b\[0m\n", "colours end with their line")
                else:
                    self.assertNotIn("\x1b", text)

    def test_a_large_map_fits_the_terminal(self):
        path = GOLDEN / "notebook_512x64.safetensors"
        flags = ("compute", "--input", f"{path}:x", "--layer", path, "--show")
        for columns in (40, 60, 120):
            plain = self.on_terminal(*flags, LANG="C", COLUMNS=str(columns)).splitlines()
            start = next(i for i, line in enumerate(plain) if "512 queries" in line)
            drawing = plain[start + 1 :]
            self.assertLessEqual(max(map(len, drawing)), columns)
            self.assertGreater(max(map(len, drawing)), min(columns, 96) - 4, "uses the width")
            self.assertIn("each cell is a mean", drawing[-1])
        halves = self.on_terminal(*flags, **COLORS, COLUMNS="60")
        self.assertEqual(halves.count("▀") % 52, 0)
        self.assertGreater(halves.count("▀"), 52 * 20)

    def test_labels_and_masked_cells(self):
        labels = self.directory / "labels.txt"
        labels.write_text("The\r\nnaïve\ntokenisation of everything\n")  # Also with the line ends of Windows.
        x = self.save("x.npy", self.random(3, 4))
        run = self.attend_ok("compute", "--input", x, "--causal", "--show", "--labels", labels, "--output", self.directory / "o.npy")
        title, first, second, third, keys, scale = run.err.splitlines()
        self.assertIn("3 queries (down) x 3 keys (across)", title)
        self.assertRegex(first, r"^ +The \|1\.00@ +- +- *$")
        self.assertRegex(second, r"^ +naïve \|\d\.\d\d. \d\.\d\d. +- *$")
        self.assertRegex(third, r"^tokenisation of… \|(\d\.\d\d. ){3}$")
        self.assertEqual({line.index("|") for line in (first, second, third)}, {first.index("|")}, "the rule is straight")
        self.assertEqual(keys.split(), ["The", "naïve", "toke…"])
        self.assertNotIn("log scale", scale)
        run = self.attend_ok("compute", "--input", x, "--show", "--color-scale", "log", "--output", self.directory / "o.npy")
        self.assertIn("(log scale)", run.err.splitlines()[-1])

    def test_progress_only_where_somebody_waits(self):
        """When the line appears, progress_test.cc asks; here, that it does, and that it is wiped before the error."""
        line = r"\r\x1b\[K1/1 \S+:x  \d+\.\d s"
        silent = socket.create_server(("127.0.0.1", 0))
        with silent:
            flags = (*NOTEBOOK_FLAGS, "--endpoints", f"127.0.0.1:{silent.getsockname()[1]}")
            self.assertNotIn("1/1", attend(*flags, "--timeout", "2s").err)
            run = attend_on_terminal(*flags, "--timeout", "50s", once=(line, silent.close))
        self.assertEqual(run.code, 4)
        self.assertRegex(run.text, line)
        self.assertRegex(run.text, r"\r\x1b\[Kattend: UNAVAILABLE")


def read_chunks(path):
    """((width, height), the image's filtered lines), by the specification: 8-bit RGB, not interlaced, every CRC right."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    position, body = 8, b""
    while position < len(data):
        (length,), kind = struct.unpack(">I", data[position : position + 4]), data[position + 4 : position + 8]
        chunk = data[position + 8 : position + 8 + length]
        (crc,) = struct.unpack(">I", data[position + 8 + length : position + 12 + length])
        assert crc == zlib.crc32(kind + chunk), kind
        if kind == b"IHDR":
            width, height, depth, color, _, _, interlace = struct.unpack(">IIBBBBB", chunk)
            assert (depth, color, interlace) == (8, 2, 0)
        body += chunk if kind == b"IDAT" else b""
        position += 12 + length
    return (width, height), np.frombuffer(zlib.decompress(body), np.uint8).reshape(height, 1 + 3 * width)


def read_png(path):
    """[height, width, 3]"""
    (width, height), raw = read_chunks(path)
    lines = [[0] * (width * 3)]
    for row in raw.tolist():
        lines.append(unfilter(row[0], row[1:], lines[-1]))
    return np.array(lines[1:], np.uint8).reshape(height, width, 3)


def unfilter(kind, line, above):
    """One line of numbers; `kind` is the filter's number in the specification."""
    if kind == 0:
        return line
    if kind == 2:
        return [(x + b) % 256 for x, b in zip(line, above, strict=True)]
    for i in range(len(line)):
        left, corner = (line[i - 3], above[i - 3]) if i >= 3 else (0, 0)
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + above[i]) // 2
        else:
            to_left, to_above = abs(above[i] - corner), abs(left - corner)
            to_corner = abs(left + above[i] - 2 * corner)
            guess = left if to_left <= min(to_above, to_corner) else above[i] if to_above <= to_corner else corner
        line[i] = (line[i] + guess) % 256
    return line


INK = (38, 38, 46)  # Of frames, axes and labels.
MASKED = (228, 228, 234)


class PlotTest(cli_harness.CliTestCase):
    def setUp(self):
        super().setUp()
        self.plot = self.directory / "weights.png"
        self.x = self.save("x.npy", self.random(4, 3))

    def draw(self, *flags, file=None):
        self.attend_ok("compute", "--input", file or self.x, "--plot", self.plot, *flags)
        return read_png(self.plot)

    def labels(self, *lines):
        path = self.directory / "labels.txt"
        path.write_text("".join(line + "\n" for line in lines))
        return path

    def frames(self, image):
        """(top, left, bottom, right) of the map, and the columns of the colour bar: the longest lines in ink."""
        ink = (image == INK).all(axis=2)
        lines = np.flatnonzero(ink.sum(axis=0) > 200)
        groups = np.split(lines, np.flatnonzero(np.diff(lines) > 1) + 1)
        self.assertEqual(len(groups), 4, "two frames")
        marked = np.flatnonzero(ink[:, groups[0][0]])
        return (marked[0], groups[0][-1], marked[-1], groups[1][0]), (groups[2][0], groups[3][-1])

    def cells(self, image, size=4):
        """A pixel of each cell, away from the number in its middle."""
        (top, left, bottom, right), _ = self.frames(image)
        rows = (top + (np.arange(size) + 0.15) * (bottom - top) / size).astype(int)
        columns = (left + (np.arange(size) + 0.15) * (right - left) / size).astype(int)
        return image[np.ix_(rows, columns)].astype(int)

    def test_the_picture_shows_the_weights_where_they_are(self):
        x = self.save("x.npy", np.ones((4, 3), np.float32))
        for row, column in ((1, 3), (3, 2)):
            with self.subTest((row, column)):
                bias = np.zeros((4, 4), np.float32)
                bias[row, column] = 9
                light = self.cells(self.draw("--bias", self.save("b.npy", bias), file=x)).sum(axis=2)
                self.assertEqual(np.unravel_index(light.argmax(), light.shape), (row, column))

    def test_masked_cells_have_a_colour_of_their_own(self):
        cells = self.cells(self.draw("--causal"))
        grey = np.abs(cells - MASKED).max(axis=2) <= 30  # Hatched.
        np.testing.assert_array_equal(grey, ~np.tri(4, dtype=bool))

    def test_a_logarithmic_scale_lightens_small_weights(self):
        x = self.save("x.npy", np.ones((4, 3), np.float32))
        bias = self.save("b.npy", np.float32([[0, 2, 4, 8]]))
        linear, log = (self.cells(self.draw("--bias", bias, "--color-scale", scale, file=x)).sum(axis=2) for scale in ("linear", "log"))
        self.assertTrue((log[:, 1:3] > linear[:, 1:3] + 60).all(), (linear, log))
        np.testing.assert_array_equal(log[:, [0, 3]], linear[:, [0, 3]], "both ends stay")

    def test_small_maps_have_numbers_in_their_cells(self):
        image = self.draw()
        (top, left, bottom, right), _ = self.frames(image)
        half_row, half_column = (bottom - top) // 8, (right - left) // 8
        for row in range(4):
            for column in range(4):
                y, x = top + (2 * row + 1) * half_row, left + (2 * column + 1) * half_column
                middle = image[y - 12 : y + 12, x - 30 : x + 30].reshape(-1, 3)
                self.assertGreater(len(np.unique(middle, axis=0)), 3, f"nothing is written in cell {row}, {column}")

    def test_axes_carry_the_labels_that_are_given(self):
        plain = self.draw()
        named = self.draw("--labels", self.labels("a", "naïve", "tokenisation", "x"))
        for image in (plain, named):
            (top, left, bottom, right), (_, bar_right) = self.frames(image)
            ink = (image < 128).all(axis=2)
            self.assertGreater(ink[: top - 4, left:right].sum(), 100, "the title")
            self.assertGreater(ink[top:bottom, bar_right + 12 :].sum(), 100, "the bar's numbers")
            for token in range(4):
                row, column = (int(start + (token + 0.5) * (end - start) / 4) for start, end in ((top, bottom), (left, right)))
                self.assertGreater(ink[row - 12 : row + 12, left - 60 : left - 12].sum(), 10, f"label of query {token}")
                self.assertGreater(ink[bottom + 14 : bottom + 40, column - 20 : column + 20].sum(), 10, f"label of key {token}")
        self.assertGreater(self.frames(named)[0][1], self.frames(plain)[0][1] + 60, "long labels have room")

    def test_labels_that_do_not_fit_are_refused(self):
        k = self.save("k.npy", self.random(5, 3))
        cross = ("sdpa", "--query", self.x, "--key", k, "--value", k, "--plot", self.plot)
        five = self.directory / "five.txt"
        five.write_text("a\nb\nc\nd\ne\n")
        four = self.labels("a", "b", "c", "d")
        run = self.attend("compute", "--input", self.x, "--show", "--labels", five)
        self.assert_fails(run, 2, "--labels has 5 lines, but there are 4 queries")
        self.assert_fails(self.attend(*cross, "--labels", four), 2, "--key-labels")
        self.assert_fails(self.attend(*cross, "--labels", four, "--key-labels", four), 2, "--key-labels has 4 lines, but there are 5 keys")
        self.attend_ok(*cross, "--labels", four, "--key-labels", five)
        self.assert_fails(self.attend(*cross, "--labels", self.labels("a", "b\x1b[0m", "c", "d")), 2, "line 2")

    def test_the_ending_says_which_format(self):
        plot = self.directory / "weights.svg"
        self.attend_ok("compute", "--input", self.x, "--plot", plot, "--causal")
        data = plot.read_bytes()
        self.assertTrue(data.startswith(b"<?xml"), data[:20])
        self.assertIn(b"</svg>", data[-20:])

    def test_without_a_font_there_are_no_empty_boxes(self):
        nothing = self.directory / "fonts.conf"
        nothing.write_text("<fontconfig></fontconfig>")
        flags = ("compute", "--input", self.x, "--plot", self.plot)
        self.assertIn("fonts-dejavu-core", self.attend(*flags, env={"FONTCONFIG_FILE": str(nothing)}).err)
        self.assertFalse(self.plot.exists())
        run = self.attend(*flags, "--labels", self.labels("a", "b", "\U0001fae8", "d"), "--plot-font", "DejaVu Sans")
        self.assertIn("lacks a character of '\U0001fae8'", run.err)

    def test_pictures_of_other_shapes_are_valid_too(self):
        for heads, queries, keys in ((1, 1, 1), (3, 7, 33), (20, 2, 2), (1, 1, 900), (1, 900, 2)):
            with self.subTest((heads, queries, keys)):
                q, k = self.save("q.npy", self.random(heads, queries, 4)), self.save("k.npy", self.random(heads, keys, 4))
                run = self.attend_ok("sdpa", "--query", q, "--key", k, "--value", k, "--per-head", "--plot", self.plot)
                (width, height), _ = read_chunks(self.plot)
                self.assertLess(max(height, width), 2500)
                self.assertEqual("leaves out 4 further maps" in run.err, heads == 20)


if __name__ == "__main__":
    unittest.main()
