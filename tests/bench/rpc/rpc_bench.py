#!/usr/bin/env python3
"""Measures what a call to attend-server costs, against a bare echo of the same bytes, and against Python with PyTorch.

Server and load generator get one core each. Attend and the other alternate within every round, so that a noisy machine
is noisy for both; medians of the rounds' ratios are reported. Writes the figures into build/bench/summary.json (merging
with what is there) and prints them.

    make bench-rpc        or        tests/bench/rpc/rpc_bench.py --bin build/release/bin --rounds 9

The comparison with Python needs build/venv (scripts/vectors-venv.sh); without it, it is left out and said so.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import results

SERVER_CORE, CLIENT_CORE = "0", "1"


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, payload):
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def tensor(shape):
    """A FLOAT32 tensor of arbitrary small values, as attend.v1.Tensor."""
    count = 1
    for axis in shape:
        count *= axis
    pattern = b"".join(bytes([0, 0, i * 37 % 128, 0x3D + i % 2]) for i in range(251))
    data = (pattern * (count // 251 + 1))[: 4 * count]
    return field(2, b"".join(varint(axis) for axis in shape)) + field(3, data)


def attend_request(tokens, dim):
    return field(1, tensor((tokens, dim)))


def sdpa_request(heads, tokens, dim):
    return b"".join(field(i, tensor((heads, tokens, dim))) for i in (1, 2, 3))


class Server:
    """A server process pinned to its core, ready when it has written its port."""

    def __init__(self, command, core=SERVER_CORE):
        self.port_file = tempfile.mktemp(prefix="attend-bench-")
        self.process = subprocess.Popen(["taskset", "-c", core, *command, "--port-file", self.port_file],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.time() + 60
        while not os.path.exists(self.port_file):
            if self.process.poll() is not None or time.time() > deadline:
                raise RuntimeError(f"{command[0]} did not start")
            time.sleep(0.01)
        ports = pathlib.Path(self.port_file).read_text().split()
        self.target, self.http_target = (f"127.0.0.1:{port}" for port in (ports[0], ports[-1]))

    def cpu_seconds(self):
        """Of all its threads, user and system, so far: what it used, however much else the machine was doing."""
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def peak_rss(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
        return 0

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)
        os.unlink(self.port_file)


class Bench:
    def __init__(self, options):
        self.options = options
        self.bin = pathlib.Path(options.bin)
        self.figures = []

    def load(self, server, method, request_file, concurrency, seconds, **flags):
        command = ["taskset", "-c", CLIENT_CORE, self.bin / "attend-load", "--target", server.target, "--method", method,
                   "--request", request_file, "--concurrency", concurrency,
                   "--seconds", seconds, "--deadline", 60]
        for name, value in flags.items():
            command += ["--" + name, value]
        before = server.cpu_seconds()
        run = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
        result = json.loads(run.stdout)
        if list(result["codes"]) != ["0"]:
            raise RuntimeError(f"calls failed, or none came back: {result}")
        result["cpu_us"] = 1e6 * (server.cpu_seconds() - before) / result["all_calls"]
        return result

    def report(self, name, value, unit, goal, **more):
        """`more`: an aim, a note, as core/summarize.py says."""
        self.figures.append({"name": name, "value": round(value, 4), "unit": unit, "goal": goal, **more})
        print(f"{name:55s} {value:10.4g} {unit:10s} goal {goal}", *(f"{key} {said}" for key, said in more.items()), sep="; ", flush=True)

    def attend_server(self, *flags):
        return Server([self.bin / "attend-server", "--listen", "127.0.0.1:0", "--threads", "1", "--log-level", "warn",
                       "--drain-wait", "0s", *flags])

    def versus(self, other, method, request, concurrency):
        """Pairs (attend, other) of load results for the same bytes, alternating."""
        seconds = self.options.seconds * (1 if len(request) < 1 << 24 else 3)  # Large calls take their time.
        with tempfile.NamedTemporaryFile(suffix=".bin") as file:
            file.write(request)
            file.flush()
            servers = [self.attend_server()]
            try:
                servers.append(Server(other))
                return [[self.load(server, method, file.name, concurrency, seconds) for server in servers]
                        for _ in range(self.options.rounds)]
            finally:
                for server in servers:
                    server.stop()

    def versus_echo(self, method, request, response_bytes, concurrency):
        echo = [self.bin / "attend-echo", "--response-bytes", str(response_bytes)]
        return self.versus(echo, method, request, concurrency)

    def small_calls(self):
        request = attend_request(5, 64)
        response_bytes = len(field(1, tensor((5, 64)))) + 2
        method = "/attend.v1.AttentionService/Attend"
        pairs = self.versus_echo(method, request, response_bytes, 32)
        self.report("rpc/attend/T5/D64/c32/rps", statistics.median(a["rps"] for a, _ in pairs), "calls/s", "-")
        self.report("rpc/attend/T5/D64/c32/rps_over_echo",
                    statistics.median(a["rps"] / e["rps"] for a, e in pairs), "ratio", ">= 0.85")
        self.report("rpc/attend/T5/D64/c32/server_cpu_per_call", statistics.median(a["cpu_us"] for a, _ in pairs), "us",
                    "-")
        self.report("rpc/attend/T5/D64/c32/server_cpu_over_echo",
                    statistics.median(a["cpu_us"] / e["cpu_us"] for a, e in pairs), "ratio", "-")
        pairs = self.versus_echo(method, request, response_bytes, 1)
        self.report("rpc/attend/T5/D64/c1/p50_over_echo",
                    statistics.median(a["codes"]["0"]["p50"] / e["codes"]["0"]["p50"] for a, e in pairs), "ratio",
                    "<= 1.15")

    def versus_python(self):
        """The same job served by Python, grpcio and PyTorch, at 8 calls in flight."""
        python = self.options.venv / "bin" / "python"
        if not python.exists():
            print(f"left out: the comparison with Python, since there is no {python}: see scripts/vectors-venv.sh")
            return
        baseline = [python, pathlib.Path(__file__).with_name("python_torch_server.py"), "--stubs",
                    self.bin.parent / "generated" / "python"]
        # Threads: the best of 1, 2, 4, 8 and asyncio for each size.
        for tokens, workers, goal in ((5, 2, ">= 12"), (512, 4, ">= 8")):
            pairs = self.versus([*baseline, "--workers", str(workers)], "/attend.v1.AttentionService/Attend",
                                attend_request(tokens, 64), 8)
            self.report(f"rpc/attend/T{tokens}/D64/c8/rps_over_python_torch",
                        statistics.median(a["rps"] / p["rps"] for a, p in pairs), "ratio", goal)

    def large_calls(self):
        """Bytes, not arithmetic: one query row per head against long keys would hide the cost of moving them."""
        for name, heads, tokens, concurrency in (("1MiB", 21, 64, 4), ("32MiB", 683, 64, 1)):
            request = sdpa_request(heads, tokens, 64)
            response_bytes = len(field(1, tensor((heads, tokens, 64)))) + 2
            pairs = self.versus_echo("/attend.v1.AttentionService/ScaledDotProductAttention", request, response_bytes,
                                     concurrency)
            ratios = []
            for ours, echo in pairs:
                # With one compute core, `concurrency` calls wait for each other's arithmetic too.
                floor = echo["codes"]["0"]["p50"] + concurrency * ours["compute"]["p50"]
                ratios.append(ours["codes"]["0"]["p50"] / floor)
            self.report(f"rpc/sdpa/{name}/c{concurrency}/time_over_echo_plus_compute", statistics.median(ratios), "ratio",
                        "<= 1.15")

    def memory(self):
        """What each call in flight adds; alone, one also pays for what the process keeps for all."""
        request = sdpa_request(683, 64, 64)
        payload = len(request) * 4 / 3  # Request and response: three tensors in, one out.
        with tempfile.NamedTemporaryFile(suffix=".bin") as file:
            file.write(request)
            file.flush()
            for calls, name in ((4, "peak_rss_over_payload"), (1, "peak_rss_over_payload_alone")):
                server = self.attend_server()
                try:
                    before = server.peak_rss()
                    self.load(server, "/attend.v1.AttentionService/ScaledDotProductAttention", file.name, calls, 2)
                    grown = server.peak_rss() - before
                finally:
                    server.stop()
                self.report(f"rpc/memory/32MiB/{name}", grown / (calls * payload), "ratio",
                            "<= 1.5" if calls > 1 else "-")

    def mixed(self):
        """Small calls at a fixed rate, alone and beside 32 MiB ones from a generator of their own; the same for an echo.

        Both generators share a core, so whatever one of them does there the other waits for. The large one therefore runs
        under SCHED_IDLE: the small one takes the core whenever it wants it, except from within a system call, which the
        kernel does not interrupt: a third of a millisecond for each mebibyte sent. How long these are depends on the
        frames that the server asks for (docs/decisions/012-http2-windows-stay-default.md), so attend is measured with
        gRPC's own and with short ones. The same loads on the echo server show what the generators do to each other.

        Figures before 2026-11-24, 22:00 are not comparable: the generator then looked at its calls once a millisecond,
        which made the normal ones three times as long, and both generators had the same priority.
        """
        small_request, large_request = attend_request(4, 64), sdpa_request(683, 64, 64)
        echo = [self.bin / "attend-echo", "--response-bytes", str(len(large_request) // 3), "--small-bytes", "4096"]
        with tempfile.NamedTemporaryFile(suffix=".bin") as small, tempfile.NamedTemporaryFile(suffix=".bin") as large:
            small.write(small_request)
            large.write(large_request)
            small.flush()
            large.flush()
            servers = [self.attend_server()]
            try:
                servers.append(self.attend_server("--grpc-channel-argument", "grpc.http2.bdp_probe=0"))
                servers.append(Server(echo))
                rounds = [[self.mixed_round(server, small.name, large.name) for server in servers]
                          for _ in range(min(5, self.options.rounds))]
            finally:
                for server in servers:
                    server.stop()
        for i, (name, goal) in enumerate((("small", "<= 2"), ("short_frames_small", "-"), ("echo_small", "-"))):
            alone, beside = ([one[i][when] for one in rounds] for when in (0, 1))
            self.report(f"rpc/mixed/32MiB/{name}_p99", statistics.median(beside), "ms", "-")
            self.report(f"rpc/mixed/32MiB/{name}_p99_over_normal_p99",
                        statistics.median(b / a for a, b in zip(alone, beside, strict=True)), "ratio", goal)

    def mixed_round(self, server, small, large):
        """The small calls' 99th percentile in milliseconds: alone, and beside large ones."""
        method = "/attend.v1.AttentionService/"
        alone = self.load(server, method + "Attend", small, 100, 2, rate=500)
        command = ["chrt", "--idle", "0", "taskset", "-c", CLIENT_CORE, self.bin / "attend-load", "--target", server.target,
                   "--method", method + "ScaledDotProductAttention", "--request", large, "--concurrency", "1",
                   "--seconds", "3", "--deadline", "60"]
        with subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL) as other:
            time.sleep(0.5)
            beside = self.load(server, method + "Attend", small, 100, 2, rate=500)
            other.wait(timeout=60)
        return alone["codes"]["0"]["p99"], beside["codes"]["0"]["p99"]

    def table(self):
        """Markdown, for RESULTS.md."""
        rows = [f"| {f['name']} | {f['value']:.4g} | {f['unit']} | {f['goal']} |" for f in self.figures]
        lines = ["| figure | value | unit | goal |", "|---|---|---|---|", *rows]
        head = f"{results.machine()}, load average {os.getloadavg()[0]:.0f} at the end"
        return f"{head}. Written by `make bench-rpc`; rpc_bench.py says what each is.\n\n" + "\n".join(lines)


def write_figures(path, figures):
    """Into the file, in place of those of the same names; all others are kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text()) if path.exists() else []
    names = {figure["name"] for figure in figures}
    path.write_text(json.dumps([f for f in kept if f["name"] not in names] + figures, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="build/release/bin", help="where the binaries are")
    parser.add_argument("--venv", type=pathlib.Path, default=pathlib.Path("build/venv"), help="where PyTorch is")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/bench/summary.json"))
    parser.add_argument("--results", type=pathlib.Path, help="also rewrite the table in this RESULTS.md")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="counted seconds of each run")
    parser.add_argument("--http", action="store_true", help="measure the HTTP door alone")
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("needs two cores: one for the server, one for the load generator")
    import http_bench  # Which import this file.
    import stream_bench

    bench = Bench(options)
    if options.http:
        http_bench.http_calls(bench)
        write_figures(options.out, bench.figures)
        if options.results:
            results.write_section(options.results, "Calls at the HTTP door", bench.table())
        return
    bench.small_calls()
    http_bench.http_calls(bench)
    stream_bench.small_requests(bench)
    bench.versus_python()
    bench.large_calls()
    bench.memory()
    bench.mixed()
    write_figures(options.out, bench.figures)
    if options.results:
        results.write_section(options.results, "Calls", bench.table())


if __name__ == "__main__":
    main()
