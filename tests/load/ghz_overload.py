#!/usr/bin/env python3
"""Sends attend-server once, twice, five and ten times what it can do with ghz, open loop (`--async --rps`), with deadlines.

    make load        or        tests/load/ghz_overload.py --ghz build/tools/ghz --bin build/release/bin

The same problem, cores, factors and deadlines as in overload.py, which does it with our own generator and keeps the
figures: ghz is what others have, so they can repeat these runs on a server of theirs, and it shares no code with us.
Capacity is what 8 callers in a closed loop reach with ghz itself. A run whose calls ghz did not send at the times asked
for (its rate is below 95 % of it) says "ghz is the limit": then it has measured its own core, and overload.py's line for
the same factor counts. Measured: of 20 000 calls of five tokens a second, ghz on one core sends 13 000 in an open loop; the
calls here, about 90 a second at capacity, are far below that.

Each run's full report is build/load/overload-*.report.json. Fails when a call ends with a code that overload does not
explain.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

import overload
import rpc_bench  # Found by overload.

CODES = {"OK": overload.OK, "DeadlineExceeded": overload.DEADLINE_EXCEEDED, "Unavailable": overload.UNAVAILABLE}
SENT_FRACTION = 0.95


def by_code(details, seconds):
    """ghz's list of calls, in the form that attend-load prints."""
    latencies = {}
    for call in details:
        latencies.setdefault(CODES.get(call["status"], call["status"]), []).append(call["latency"] / 1e6)
    codes = {}
    for code, values in latencies.items():
        values.sort()
        at = {f"p{q}": values[min(len(values) - 1, len(values) * q // 100)] for q in (50, 90, 99)}
        codes[code] = {"count": len(values), **at}
    return {"codes": codes, "seconds": seconds, "rps": codes.get(overload.OK, {}).get("count", 0) / seconds}


class GhzOverload(overload.Overload):
    """Overload with ghz as its generator."""

    def __init__(self, options):
        super().__init__(options)
        self.limited, self.unexplained = [], []

    def request_bytes(self):
        message = super().request_bytes()
        return rpc_bench.varint(len(message)) + message  # ghz reads a file of such messages.

    def load(self, name, seconds, **flags):
        report = self.options.reports / f"overload-{name.replace(' ', '-')}.report.json"
        deadline = f"{1000 * flags['deadline']:.0f}ms"
        command = ["taskset", "-c", rpc_bench.CLIENT_CORE, self.options.ghz, "--insecure", "--call",
                   overload.METHOD.strip("/").replace("/", "."), "--binary-file", self.file.name, "--name", name,
                   "--disable-template-functions", "--disable-template-data", "--connections", 2, "--count-errors",
                   "--duration", f"{seconds}s", "--duration-stop", "wait", "--timeout", deadline, "--format", "json",
                   "--output", report]
        if "rate" in flags:
            command += ["--async", "--rps", round(flags["rate"])]
        else:
            command += ["--concurrency", flags["concurrency"]]
        cpu, start = self.server.cpu_seconds(), time.monotonic()
        subprocess.run([str(word) for word in [*command, self.server.target]], check=True, timeout=60)
        used = (self.server.cpu_seconds() - cpu) / (time.monotonic() - start)
        details = json.loads(report.read_text())["details"]
        result = {**by_code(details, seconds), "cpu": used}
        self.rows.append((name, round(flags.get("rate", 0)), result, self.rss_mib()))
        self.unexplained += [f"{name}: {code}" for code in result["codes"] if code not in CODES.values()]
        if len(details) < SENT_FRACTION * flags.get("rate", 0) * seconds:
            self.limited.append(f"{name}: ghz is the limit, it sent {len(details) / seconds:.0f} calls/s")
        return result

    def run(self):
        self.load("warm-up", 1, concurrency=overload.CALLERS, deadline=10)
        self.rows.clear()
        closed = self.closed()
        for factor in overload.FACTORS:
            self.load(f"{factor}x", self.options.seconds, rate=factor * closed["rps"],
                      deadline=2 * closed["codes"][overload.OK]["p99"] / 1000)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="build/release/bin", help="where attend-server is")
    parser.add_argument("--ghz", type=pathlib.Path, default=pathlib.Path("build/tools/ghz"), help="the program")
    parser.add_argument("--reports", type=pathlib.Path, default=pathlib.Path("build/load"), help="where reports go")
    parser.add_argument("--seconds", type=int, default=3, help="length of each run")
    options = parser.parse_args()
    options.reports.mkdir(parents=True, exist_ok=True)
    with overload.on_the_generators_core(), GhzOverload(options) as runs:
        runs.run()
    print("\n".join(["ghz, open loop:", *runs.load_table(), *runs.limited]), flush=True)
    if runs.unexplained:
        sys.exit("calls failed in ways that overload does not explain: " + ", ".join(runs.unexplained))


if __name__ == "__main__":
    main()
