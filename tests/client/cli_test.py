"""What the shell sees of `attend`: exit codes, streams, environment, terminals."""

import json
import re
import resource
import signal
import socket
import subprocess
import tempfile
import unittest

import numpy as np

import cli_harness
from attend_testing.server import BINARY, PATIENCE, Server, is_sanitized
from cli_harness import ATTEND, GOLDEN, attend, attend_on_terminal, environment, npy_array

NOTEBOOK = GOLDEN / "notebook_5x64.safetensors"
NOTEBOOK_FLAGS = ("compute", "--input", f"{NOTEBOOK}:x", "--layer", NOTEBOOK)
COLORS = {"TERM": "xterm-256color", "LANG": "en_US.UTF-8"}


_BOUND = socket.socket()
_BOUND.bind(("127.0.0.1", 0))


def closed_port():
    """Where nothing listens, and nothing can: a port that was only free a moment ago may be another test's server by now."""
    return _BOUND.getsockname()[1]


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
            ([], "a command is missing: compute, sdpa, "),
            (["frobnicate"], "frobnicate"),
            (["compute"], "attend compute needs --input"),
            (["compute", "--input", x, "--no-such-flag"], "--no-such-flag"),
            (["compute", "--input", x, "--scale", "big"], "--scale"),
            (["compute", "--input", x, "--causal", "--causal-top-left"], "--causal and --causal-top-left exclude each other"),
            (["compute", "--input", x, "--return", "outputs"], "--return"),
            (["compute", "--input", x, "-o", "yaml"], "yaml"),
            (["compute", "--input", x, "--timeout", "0s"], "not a positive duration"),
            (["compute", "--input", x, "--timeout", "inf"], "not a positive duration"),
            (["compute", "--input", x, "--timeout", "soon"], "not a positive duration"),
            (["compute", "--input", x, "--endpoints", "no/where"], "not host or host:port"),
            (["compute", "--input", x, "--tls-cert", "a.pem"], "--tls-key"),
            (["compute", "--input", x, "--tls-ca", "/no/such.pem"], "/no/such.pem"),
            (["compute", "--input", x, "--num-heads", "2"], "belong to a --layer"),
            (["compute", "--input", x, "--output", "x.csv"], "expected a .npy, .npz or .safetensors file"),
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
            (["compute", "--input", x, "--cumulative-query-lengths", "0,two"], "'0,two' is no file that attend reads"),
            (["compute", "--input", x, "--cumulative-key-lengths", x], "expected integers"),
            (["compute", "--input", x, "--partial", "part.safetensors"], "--partial"),
            (["sdpa", "--query", x, "--key", x, "--value", x, "--partial", "part.npy"], "--partial part.npy: expected a .safetensors file"),
            (["sdpa", "--query", x, "--key", x, "--value", x, "--partial", str(NOTEBOOK)], "there is no tensor 'log_sum_exp'"),
            (["sdpa", "--query", "q.npy"], "attend sdpa needs --key"),
            (["info", "-o", "npy"], "npy"),
        )
        for arguments, needle in cases:
            with self.subTest(" ".join(arguments)):
                run = attend(*arguments, env={"ATTEND_ENDPOINTS": f"127.0.0.1:{closed_port()}"})
                self.assertEqual(run.code, 2, run.err)
                self.assertEqual(run.out, b"")
                self.assertIn(needle, run.err)

    def test_an_empty_value_is_not_a_flag_that_was_left_out(self):
        """Nor does a flag that ends with an equals sign take the next argument."""
        compute, delete = ("compute", "--input", f"{NOTEBOOK}:x"), ("layers", "delete", "minilm/0")
        upload = ("layers", "upload", "minilm/0", NOTEBOOK)
        cases = (
            ((*compute, "--layer", ""), "--layer"),
            ((*compute, "--layer="), "--layer"),
            ((*compute, "--layer=", "--weights"), "--layer"),
            ((*compute, "--layer-name", ""), "--layer-name"),
            ((*compute, "--context", ""), "--context"),
            ((*compute, "--mask", ""), "--mask"),
            ((*compute, "--output", ""), "--output"),
            ((*compute, "--plot", ""), "--plot"),
            ((*compute, "--input", ""), "--input"),
            ((*compute, "--tls-ca", ""), "--tls-ca"),
            (("--tls-ca", "", *compute), "--tls-ca"),
            ((*compute, "--token-file", ""), "--token-file"),
            ((*compute, "--endpoints", ""), "--endpoints"),
            ((*delete, "--etag", ""), "--etag"),
            ((*upload, "--replace", "--etag", ""), "--etag"),
            ((*upload, "--replace", "--etag="), "--etag"),
            ((*upload, "--sha256", ""), "--sha256"),
            (("layers", "upload", "minilm/0", "", "--init", "1:64"), "FILE"),
        )
        for arguments, name in cases:
            with self.subTest(arguments=arguments):
                run = attend(*arguments)
                expected = f"attend: {name} has an empty value; give one, or leave {name} out\n"
                self.assertEqual((run.code, run.out, run.err), (2, b"", expected))

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
            ("x.txt", "is no file that attend reads"),
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
                self.assertIn("nothing listens on 127.0.0.1:", run.err)

    def test_a_deadline_that_passes_ends_with_4(self):
        with socket.socket() as silent:  # Takes connections and says nothing.
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            run = attend(*NOTEBOOK_FLAGS, "--endpoints", f"127.0.0.1:{silent.getsockname()[1]}", "--timeout", "300ms")
        self.assertEqual(run.code, 4)
        self.assertIn("takes connections and says nothing", run.err)


class ServerTest(cli_harness.CliTestCase):
    def test_a_refusal_ends_with_3_and_all_that_the_server_said(self):
        q, k = self.save("q.npy", self.random(2, 3)), self.save("k.npy", self.random(2, 4))
        self.assert_fails(
            self.attend("sdpa", "--query", q, "--key", k, "--value", k),
            3, r"^attend: the server refuses --key: key\.shape ",
        )  # fmt: skip

    def test_a_limit_is_named_with_its_flag(self):
        with Server("--max-request-bytes", "1000") as small:
            run = attend(*NOTEBOOK_FLAGS, "--endpoints", small.address)
        self.assert_fails(run, 3, "the request is too large: ", "--max-request-bytes")

    def test_the_first_error_ends_a_batch(self):
        good, bad = self.save("good.npy", self.random(2, 3)), self.save("bad.npy", self.random(2))
        run = self.attend("compute", "--input", good, "--input", bad, "--input", good)
        self.assertEqual(run.code, 3, run.err)
        self.assertRegex(run.text, rf"^{good}\noutput  float32 \[2, 3\]\n", "what was computed before is handed over")

    def test_info(self):
        run = self.attend_ok("info", "-o", "json")
        info = json.loads(run.out)
        self.assertGreaterEqual(info["num_threads"], 1)
        types = ["float32", "float64", "float16", "bfloat16"]
        self.assertLessEqual(set(types), set(info["supported_data_types"]))
        self.assertRegex(self.attend_ok("info").text, rf"(?m)^supported data types +{', '.join(info['supported_data_types'])}$")
        self.assertEqual(info["limits"]["max_queued_requests"], 64)
        self.assertGreaterEqual(len(info["limits"]), 11)
        for limit in info["limits"]:
            self.assertRegex(self.attend_ok("info").text, rf"(?m)^{limit.replace('_', ' ')} +\d")
        self.assertRegex(self.attend_ok("info").text, r"(?m)^max request bytes +256 MiB$")
        self.assertRegex(self.attend_ok("info").text, r"(?m)^max request memory bytes +2 GiB$")
        self.assertRegex(self.attend_ok("info").text, rf"(?m)^version +{info['version']}$")

    def test_health(self):
        self.assertEqual(self.attend_ok("health").text, "SERVING\n")
        self.assertEqual(self.attend_ok("health", "--service", "readiness").text, "SERVING\n")
        run = self.attend_ok("health", "-o", "json", "--service", "attend.v1.AttentionService")
        self.assertEqual(json.loads(run.out), {"service": "attend.v1.AttentionService", "status": "SERVING"})
        self.assert_fails(self.attend("health", "--service", "nobody"), 3, "the server does not find it")

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

    def test_an_empty_variable_counts_as_not_set(self):
        names = ("TIMEOUT", "TLS", "TLS_CA", "CLIENT_TLS_CERT", "CLIENT_TLS_KEY", "TLS_SERVER_NAME", "TOKEN_FILE", "TOKEN", "FORMAT")
        run = self.attend_ok("health", env={f"ATTEND_{name}": "" for name in names})
        self.assertEqual(run.text, "SERVING\n")

    def test_the_common_flags_stand_on_either_side_of_the_command(self):
        flags = ("--endpoints", self.server.address, "--timeout", "20s")
        for arguments in ((*flags, "health"), ("health", *flags), (*flags[:2], "health", *flags[2:])):
            run = attend(*arguments)
            self.assertEqual((run.code, run.text), (0, "SERVING\n"), run.err)
        nowhere = {"ATTEND_ENDPOINTS": f"127.0.0.1:{closed_port()}"}
        self.assertEqual(attend(*flags, "health", env=nowhere).code, 0, "also there a flag wins over the environment")
        for arguments in (["frobnicate"], ["frobnicate", "--help"], [*flags, "frobnicate"]):
            run = attend(*arguments)
            known = "compute, sdpa, batch, demo, info, health, layers, version, help, completions"
            self.assertEqual((run.code, run.err), (2, f"attend: there is no command 'frobnicate'; there are {known}\n"))

    def test_a_pipe_carries_the_answer_alone(self):
        run = self.attend_ok(*NOTEBOOK_FLAGS, "--show", "--timing", "-o", "npy")
        self.assertEqual(npy_array(run.out).shape, (5, 64))
        for word in ("attention_weights", "round trip"):
            self.assertIn(word, run.err)

    def test_output_that_does_not_arrive_is_an_error_of_every_command(self):
        for arguments in (["info"], ["info", "-o", "json"], ["health"], ["layers", "list", "-o", "json"], ["layers", "check", NOTEBOOK],
                          [*NOTEBOOK_FLAGS, "--estimate"], [*NOTEBOOK_FLAGS, "--show", "--timing"], ["demo"], ["help"],
                          ["help", "compute"], ["version"], ["--version"], ["--help"], ["completions", "bash"]):  # fmt: skip
            with self.subTest(arguments=arguments), open("/dev/full", "wb") as full:
                done = subprocess.run([ATTEND, *arguments], stdout=full, stderr=subprocess.PIPE, env=environment(self.env),
                                      timeout=PATIENCE, check=False)  # fmt: skip
                self.assertEqual((done.returncode, done.stderr), (5, b"attend: cannot write to standard output\n"))

    def test_what_the_server_prints_likewise(self):
        for flag in ("--help", "--version", "--print-config", "--check-config"):
            with self.subTest(flag=flag), open("/dev/full", "wb") as full:
                done = subprocess.run([BINARY, flag], stdout=full, stderr=subprocess.PIPE, env=environment(), timeout=PATIENCE, check=False)
                self.assertEqual((done.returncode, done.stderr), (1, b"attend-server: cannot write to standard output\n"))

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
        """What stays there: a call that takes more than a second shows its progress, and wipes it."""
        run = attend_on_terminal(*arguments, env={**self.env, **env})
        self.assertEqual(run.code, 0, run.out)
        return re.sub(r"(?:\r\x1b\[K1/1 [^\r\n]*)+\r\x1b\[K", "", run.text)

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
        self.assertRegex(run.text, r"\r\x1b\[Kattend: nothing listens")


if __name__ == "__main__":
    unittest.main()
