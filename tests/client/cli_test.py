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
            (["compute", "--input", x, "--plot", "x.jpg"], "expected a .png"),
            (["compute", "--input", x, "--expect", "nothing=x.npy"], "no returned tensor is called 'nothing'"),
            (["compute", "--input", x, "--input", x, "--output", "o.npy"], "--output-dir"),
            (["compute", "--input", x, "--input", x, "--output-dir", "/tmp"], "two inputs would both"),
            (["compute", "--input", x, "--dtype", "int8"], "--dtype"),
            (["compute", "--input", x, "--top-k", "0"], "--top-k"),
            (["compute", "--input", x, "--top-k", "1048577"], "--top-k"),
            (["compute", "--input", x, "--return", "top_attention_weights"], "need --top-k N"),
            (["compute", "--input", x, "--expect", "top_attention_indices=x.npy"], "need --top-k N"),
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
        self.assertRegex(self.attend_ok("info").text, rf"(?m)^data types +{', '.join(info['supported_data_types'])}$")
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
        run = self.attend_ok(*NOTEBOOK_FLAGS, "--show", "--timing", "--verify")
        npy_arrays(run.out)
        for word in ("attention_weights", "round trip", "largest error"):
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


class PlotTest(cli_harness.CliTestCase):
    def brightest(self, image, box):
        """The (row, column) of the brightest cell of a 4 x 4 map whose frame is `box`."""
        top, left, bottom, right = box
        rows = np.linspace(top, bottom, 9)[1::2].astype(int)
        columns = np.linspace(left, right, 9)[1::2].astype(int)
        light = image.astype(int).sum(axis=2)[np.ix_(rows, columns)]
        return np.unravel_index(light.argmax(), light.shape)

    def test_the_picture_shows_the_weights_where_they_are(self):
        plot = self.directory / "weights.png"
        for row, column in ((1, 3), (3, 2)):
            with self.subTest((row, column)):
                bias = np.zeros((4, 4), np.float32)
                bias[row, column] = 9
                x = self.save("x.npy", np.ones((4, 3), np.float32))
                self.attend_ok("compute", "--input", x, "--bias", self.save("b.npy", bias), "--plot", plot)
                image = read_png(plot)
                # The frames of the map and of the colour bar are the longest dark vertical lines.
                ink = (image == (30, 30, 36)).all(axis=2)
                lines = np.flatnonzero(ink.sum(axis=0) > 200)
                self.assertEqual(len(lines), 4, "two frames")
                marked = np.flatnonzero(ink[:, lines[0]])
                box = (marked[0], lines[0], marked[-1], lines[1])
                self.assertEqual(self.brightest(image, box), (row, column))

    def test_the_axes_are_labelled(self):
        """Index labels at each token, a name along each axis, a title, and numbers at the colour bar: all drawn in ink."""
        plot = self.directory / "weights.png"
        x = self.save("x.npy", self.random(4, 3))
        self.attend_ok("compute", "--input", x, "--plot", plot)
        ink = (read_png(plot) == (30, 30, 36)).all(axis=2)
        left, right, bar_left, bar_right = np.flatnonzero(ink.sum(axis=0) > 200)
        marked = np.flatnonzero(ink[:, left])
        top, bottom = marked[0], marked[-1]
        glyphs = []
        for token in range(4):
            column = left + int((token + 0.5) * (right - left) / 4)
            row = top + int((token + 0.5) * (bottom - top) / 4)
            below, beside = ink[bottom + 10 : bottom + 28, column - 12 : column + 12], ink[row - 9 : row + 9, left - 34 : left - 9]
            for where, label in (("below", below), ("beside", beside)):
                self.assertGreater(label.sum(), 20, f"the index of token {token} {where} the map")
            glyphs.append(self.cropped(below).tobytes())
            self.assertEqual(glyphs[-1], self.cropped(beside).tobytes(), "both axes use one font")
        self.assertEqual(len(set(glyphs)), 4, "each token has a number of its own")
        keys = self.cropped(ink[bottom + 30 :, left:right])
        queries = self.cropped(ink[:, : left - 60])
        self.assertTrue(90 < keys.shape[1] < 120 and keys.shape[0] < 20, f"'key token', not {keys.shape}")
        self.assertTrue(110 < queries.shape[0] < 150 and queries.shape[1] < 20, f"'query token', upright, not {queries.shape}")
        self.assertGreater(ink[: top - 4, left:right].sum(), 100, "the title")
        self.assertGreater(ink[: top - 4, bar_left:].sum(), 50, "the bar's name")
        self.assertGreater(ink[top:bottom, bar_right + 8 :].sum(), 100, "the bar's numbers")

    def cropped(self, ink):
        """`ink` without the empty lines and columns around it; it must not be all empty."""
        self.assertTrue(ink.any(), "nothing is drawn there")
        rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
        return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]

    def test_pictures_of_other_shapes_are_valid_too(self):
        plot = self.directory / "weights.png"
        for heads, queries, keys in ((1, 1, 1), (3, 7, 33), (20, 2, 2), (1, 1, 900), (1, 900, 2)):
            with self.subTest((heads, queries, keys)):
                q, k = self.save("q.npy", self.random(heads, queries, 4)), self.save("k.npy", self.random(heads, keys, 4))
                run = self.attend_ok("sdpa", "--query", q, "--key", k, "--value", k, "--per-head", "--plot", plot)
                (width, height), _ = read_chunks(plot)
                self.assertLess(max(height, width), 2500)
                self.assertEqual("leaves out 4 further maps" in run.err, heads == 20)


if __name__ == "__main__":
    unittest.main()
