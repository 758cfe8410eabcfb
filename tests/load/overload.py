#!/usr/bin/env python3
"""Sends attend-server once, twice, five and ten times what it can do, with deadlines, and reports what is left of it.

Server and generator have a core each, so that neither is measured by the other. The problem is heavy in arithmetic and
light in bytes: attention of 4096 tokens of 8 BFLOAT16 values to themselves reads 64 KiB and computes 16.8 million
scores, milliseconds of one core. (A request without a named layer has at most T / 2 operations for each byte; many short
tokens have most.)

    make load        or        tests/load/overload.py --bin build/release/bin [--out summary.json] [--results RESULTS.md]

What is measured:
  peak      answers per second to 8 callers who each wait for their answer (closed loop); their p99 is "normal"
  1x .. 10x that rate times the factor, at fixed times whatever the server does (open loop), each call with a deadline of
            twice the normal p99; goodput counts answers within it, and is divided by the peaks before and after
  rejection how long those wait that hear no at once
  recovery  from the end of 10x to the first of five calls in a row that take no longer than normal
  cancel    from a client's cancelling a call of seconds to the next call's turn, less what that takes on an idle server
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "bench" / "rpc"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "bench"))
import results
import rpc_bench

METHOD = "/attend.v1.AttentionService/Attend"
OK, DEADLINE_EXCEEDED, UNAVAILABLE = "0", "4", "14"
FACTORS = (1, 2, 5, 10)
CALLERS = 8
BFLOAT16 = b"\x08\x04"

GOALS = {
    "overload/2x/goodput_over_peak": (">= 0.95", ">= 0.98"),
    "overload/10x/goodput_over_peak": (">= 0.85", ">= 0.95"),
    "overload/10x/accepted_p99_over_normal_p99": ("<= 2", "<= 1.5"),
    "overload/rejection_p99_ms": ("<= 10", "<= 3"),
    "overload/recovery_s": ("<= 5", "<= 1"),
    "cancel/stop_p99_ms": ("<= 20", "<= 5"),
}


def embeddings(tokens, dim, data_type=b"", width=4):
    """An AttendRequest of `tokens` small values each."""
    shape = b"".join(rpc_bench.varint(axis) for axis in (tokens, dim))
    data = bytes([0x3C, 0x3D]) * (tokens * dim * width // 2)
    return rpc_bench.field(1, data_type + rpc_bench.field(2, shape) + rpc_bench.field(3, data))


@contextlib.contextmanager
def on_the_generators_core():
    """Keeps this process off the server's core."""
    everywhere = os.sched_getaffinity(0)
    if len(everywhere) < 2:
        sys.exit("needs two cores: one for the server, one for the load generator")
    os.sched_setaffinity(0, {int(rpc_bench.CLIENT_CORE)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, everywhere)


class Overload:
    def __init__(self, options):
        self.options, self.bin = options, pathlib.Path(options.bin)
        self.rows, self.figures = [], []

    def __enter__(self):
        self.file = tempfile.NamedTemporaryFile(suffix=".bin")
        self.file.write(self.request_bytes())
        self.file.flush()
        self.server = rpc_bench.Server([self.bin / "attend-server", "--listen", "127.0.0.1:0", "--threads", "1",
                                        "--log-level", "warn", "--drain-wait", "0s"])
        return self

    def __exit__(self, *_):
        self.server.stop()
        self.file.close()

    def request_bytes(self):
        """What the file of requests holds."""
        return embeddings(4096, 8, data_type=BFLOAT16, width=2)

    def rss_mib(self):
        status = pathlib.Path(f"/proc/{self.server.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024

    def load(self, name, seconds, **flags):
        command = ["taskset", "-c", rpc_bench.CLIENT_CORE, self.bin / "attend-load", "--target", self.server.target,
                   "--method", METHOD, "--request", self.file.name, "--seconds", seconds,
                   "--warmup", 0.5]
        for flag, value in flags.items():
            command += ["--" + flag, value]
        cpu, start = self.server.cpu_seconds(), time.monotonic()
        run = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, timeout=60)
        result = json.loads(run.stdout)
        result["cpu"] = (self.server.cpu_seconds() - cpu) / (time.monotonic() - start)
        self.rows.append((name, flags.get("rate", 0), result, self.rss_mib()))
        return result

    def closed(self):
        return self.load("closed loop", self.options.seconds, concurrency=CALLERS, deadline=10)

    def run(self):
        self.load("warm-up", 1, concurrency=CALLERS, deadline=10)
        self.rows.clear()
        before = self.closed()
        normal = before["codes"][OK]["p99"]
        deadline = 2 * normal / 1000
        refused = []
        for factor in FACTORS:
            result = self.load(f"{factor}x", self.options.seconds, rate=round(factor * before["rps"], 1),
                               deadline=deadline, concurrency=2000)
            if factor == FACTORS[-1]:
                self.report("overload/recovery_s", self.recovery(result["drain_seconds"], normal), "s")
            after = self.closed()
            if factor in (2, 10):
                peak = (before["rps"] + after["rps"]) / 2
                self.report(f"overload/{factor}x/goodput_over_peak", result["rps"] / peak, "ratio")
            if factor == 10:
                self.report("overload/10x/accepted_p99_over_normal_p99", result["codes"][OK]["p99"] / normal, "ratio")
            if factor > 1 and UNAVAILABLE in result["codes"]:
                refused.append(result["codes"][UNAVAILABLE]["p99"])
            before = after
        self.report("overload/rejection_p99_ms", max(refused), "ms")
        self.report("cancel/stop_p99_ms", self.cancel(), "ms")

    def call(self):
        channel = grpc.insecure_channel(self.server.target)
        return channel, channel.unary_unary(METHOD)

    def recovery(self, drained, normal_ms):
        """In seconds; `drained` of them had passed when the generator was done."""
        start, in_a_row = time.monotonic(), []
        request = pathlib.Path(self.file.name).read_bytes()
        channel, method = self.call()
        with channel:
            while len(in_a_row) < 5 and time.monotonic() - start < 30:
                sent = time.monotonic()
                try:
                    method(request, timeout=2 * normal_ms / 1000)
                except grpc.RpcError:
                    in_a_row = []
                    continue
                in_a_row = [*in_a_row, sent] if time.monotonic() - sent <= normal_ms / 1000 else []
        return drained + (in_a_row[0] if in_a_row else time.monotonic()) - start

    def cancel(self):
        """The 99th percentile over calls that are cancelled at different moments, in milliseconds."""
        heavy, probe = embeddings(1 << 16, 16), embeddings(512, 64)
        channel, method = self.call()

        def probe_ms():
            start = time.monotonic()
            method(probe, timeout=30)
            return 1000 * (time.monotonic() - start)

        with channel:
            idle = statistics.median(probe_ms() for _ in range(20))
            stops = []
            for i in range(60):
                call = method.future(heavy, timeout=60)
                time.sleep(0.05 + 0.0007 * i)  # Long enough to have begun, well before it would end.
                call.cancel()
                stops.append(max(0.0, probe_ms() - idle))
        return sorted(stops)[int(0.99 * len(stops))]

    def report(self, name, value, unit):
        goal, aim = GOALS[name]
        self.figures.append({"name": name, "value": round(value, 4), "unit": unit, "goal": goal, "aim": aim})
        print(f"{name:45s} {value:10.4g} {unit:6s} goal {goal:8s} aim {aim}", flush=True)

    def load_table(self):
        lines = ["| load | calls/s sent | answered in time/s | p50 ms | p99 ms | refused/s | their p99 ms | late/s | server CPU | "
                 "RSS |", "|---|---|---|---|---|---|---|---|---|---|"]
        for name, rate, result, rss in self.rows:
            codes, seconds = result["codes"], result["seconds"]
            done, no = codes.get(OK, {}), codes.get(UNAVAILABLE, {})
            lines.append(f"| {name} | {rate or ''} | {result['rps']:.0f} | {done.get('p50', 0):.1f} | {done.get('p99', 0):.1f}"
                         f" | {no.get('count', 0) / seconds:.0f} | {no.get('p99', 0):.1f}"
                         f" | {codes.get(DEADLINE_EXCEEDED, {}).get('count', 0) / seconds:.0f}"
                         f" | {100 * result['cpu']:.0f} % | {rss:.0f} MiB |")
        return lines

    def table(self):
        lines = [f"{results.machine()}. Written by `make bench-rpc RESULTS=tests/bench/RESULTS.md`; tests/load/overload.py",
                 "says what was done.", "", *self.load_table()]
        lines += ["", "| figure | value | must hold | aim |", "|---|---|---|---|"]
        lines += [f"| `{f['name']}` | {f['value']:.3g} | {f['goal']} | {f['aim']} |" for f in self.figures]
        return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="build/release/bin", help="where the binaries are")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/bench/summary.json"))
    parser.add_argument("--results", type=pathlib.Path, help="also rewrite the section in this RESULTS.md")
    parser.add_argument("--seconds", type=float, default=4.0, help="counted seconds of each run")
    options = parser.parse_args()
    with on_the_generators_core(), Overload(options) as overload:
        overload.run()
    print(overload.table())
    rpc_bench.write_figures(options.out, overload.figures)
    if options.results:
        results.write_section(options.results, "Overload", overload.table())


if __name__ == "__main__":
    main()
