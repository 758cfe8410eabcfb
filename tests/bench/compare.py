#!/usr/bin/env python3
"""Is this tree as fast as another commit? Builds both and measures them in turns, in one run.

    make bench-compare BASE=<commit> [ROWS=regex] [ROUNDS=10] [LIMIT=0.98]

BASE is built in a git worktree of its own, build/compare/base, which is removed again; this tree is built in
build/release, as it is, committed or not. Both use the preset `release` and one compiler cache. Each side runs its own
binaries, driven by its own tests/bench/rpc/rpc_bench.py, so a benchmark may have changed in between: what is compared is
then what the two say under the same name.

Every round measures each row once on both sides, right after each other, in processes of their own; the order changes
from round to round (base, new, new, base). For each row it prints the ratio base time / new time, above 1 when this tree
is faster, and its 95 % interval: Student's t interval over the pairs' log-ratios (paired.py). A rate or a share of the
machine's peak counts as the inverse of a time. Rows that BASE does not have are listed as "new" and not judged; rows that
only BASE has are "gone". With LIMIT, the run fails when a row's lower limit is below it, or when a row is gone.

The rows of a plain run are those of speed, some 17, and take about 10 minutes on an idle machine. ROWS chooses others: all
that `core_bench --benchmark_list_tests` names, and the rpc/ and overload/ rows below. A round of overload in which no call is
answered ends the run. Everything is written into build/bench/compare.json, with all the values measured.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import paired
import results

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIN_ROUNDS = 9
WIRE_SECONDS = 1.0
OVERLOAD_SECONDS = 2.0

# What a plain run measures: how fast, not how much memory or how soon a cancelled call stops, and not oneDNN.
SPEED = r"^core/.*(/peak_fraction|/bandwidth_fraction|/2t_over_1t|/attend_us)$|^rpc/"

# The last part of a row's name says what it is. These are better when they are smaller, all others when larger.
SMALLER_IS_BETTER = re.compile(r"(_us|_ms|p50|_per_call|_per_request|_share|_over_io)$")

SERVICE = "/attend.v1.AttentionService/"


class WireLoad:
    """One run of the load generator, and the rows that it gives: name -> value out of its result."""

    def __init__(self, method, request, concurrency, rows, **flags):
        self.method, self.request, self.concurrency, self.rows, self.flags = method, request, concurrency, rows, flags

    @contextlib.contextmanager
    def serving(self, side, seconds):
        """The side's benchmark, a server of its own and the file with the request."""
        with tempfile.NamedTemporaryFile(suffix=".bin") as file:
            file.write(self.request(side.wire))
            file.flush()
            bench = side.wire.Bench(argparse.Namespace(bin=side.bin, rounds=1, seconds=seconds))
            server = bench.attend_server()
            try:
                yield bench, server, file.name
            finally:
                server.stop()

    def measure(self, side):
        with self.serving(side, WIRE_SECONDS) as (bench, server, file):
            result = bench.load(server, SERVICE + self.method, file, self.concurrency, WIRE_SECONDS, **self.flags)
        return {name: value(result) for name, value in self.rows.items()}


def _rps(result):
    return result["rps"]


def _p50(result):
    return result["codes"]["0"]["p50"]


def _cpu_us(result):
    return result["cpu_us"]


def _small(wire):
    return wire.attend_request(5, 64)


class OverloadLoad(WireLoad):
    """What tests/load/overload.py sends, in short: eight callers in a closed loop, then twice and ten times their rate.

    Each side gets multiples of its own peak, with a deadline of twice its median then, which varies less than the 99th
    percentile that overload.py takes.
    """

    def __init__(self):
        super().__init__("Attend", self.tokens, 8, dict.fromkeys(
            ("overload/peak/rps", "overload/2x/goodput", "overload/10x/goodput", "overload/10x/accepted_p99_ms")))

    @staticmethod
    def tokens(wire):
        """4096 tokens of 8 BFLOAT16 values: milliseconds of arithmetic for 64 KiB."""
        shape = b"".join(wire.varint(axis) for axis in (4096, 8))
        data = bytes([0x3C, 0x3D]) * (4096 * 8)
        return wire.field(1, b"\x08\x04" + wire.field(2, shape) + wire.field(3, data))

    def measure(self, side):
        with self.serving(side, OVERLOAD_SECONDS) as (_, server, file):
            def load(**flags):
                return self.answers(side, server, file, **flags)
            peak = load(concurrency=self.concurrency, deadline=10)
            deadline = 2 * _p50(peak) / 1000
            twice, tenfold = (load(rate=factor * _rps(peak), deadline=deadline, concurrency=2000) for factor in (2, 10))
        values = (_rps(peak), _rps(twice), _rps(tenfold), tenfold["codes"]["0"]["p99"])
        return dict(zip(self.rows, values, strict=True))

    def answers(self, side, server, request_file, **flags):
        """As Bench.load, but calls may be refused or late."""
        command = ["taskset", "-c", side.wire.CLIENT_CORE, side.bin / "attend-load", "--target", server.target, "--method",
                   SERVICE + self.method, "--request", request_file, "--seconds", OVERLOAD_SECONDS, "--warmup", 0.5]
        for name, value in flags.items():
            command += ["--" + name, value]
        run = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True)
        result = json.loads(run.stdout)
        if "0" not in result["codes"]:
            raise RuntimeError(f"{side.name}: no call was answered: {result}")
        return result


WIRE_LOADS = [
    WireLoad("Attend", _small, 1, {"rpc/attend/T5/D64/c1/p50": _p50}),
    WireLoad("Attend", _small, 32,
             {"rpc/attend/T5/D64/c32/rps": _rps, "rpc/attend/T5/D64/c32/server_cpu_per_call": _cpu_us}),
    WireLoad("StreamAttend", _small, 64,
             {"rpc/stream/T5/D64/rps": _rps, "rpc/stream/T5/D64/server_cpu_per_request": _cpu_us}, stream="true"),
    WireLoad("ScaledDotProductAttention", lambda wire: wire.sdpa_request(21, 64, 64), 4,
             {"rpc/sdpa/1MiB/c4/p50": _p50}),
    OverloadLoad(),
]


class CoreCase:
    """One benchmark of core_bench, which is one row."""

    def __init__(self, name):
        self.rows = {name: None}

    def measure(self, side):
        (name,) = self.rows
        command = [side.bin / "core_bench", f"--benchmark_filter=^{re.escape(name)}(/iterations:1)?$", "--benchmark_format=json"]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        found = json.loads(run.stdout)["benchmarks"]
        values = [case["value"] for case in found if "value" in case]  # A skipped one has none.
        return {name: values[-1]} if values else {}


class Side:
    """One of the two trees, built, and what it can measure."""

    def __init__(self, name, root, label):
        self.name, self.root, self.label = name, root, label
        self.bin = root / "build" / "release" / "bin"
        self.wire = None
        self.core_rows = []

    def build(self, targets, jobs):
        environment = {**os.environ, "CCACHE_BASEDIR": str(self.root), "CCACHE_NOHASHDIR": "1",
                       "CCACHE_COMPILERCHECK": "content"}
        def cmake(*words):
            return subprocess.run(["cmake", *words], cwd=self.root, env=environment, check=True, text=True,
                                  stdout=subprocess.PIPE).stdout
        print(f"building {self.name}: {self.label}", flush=True)
        cmake("--preset", "release")
        known = set(re.findall(r"^(?:\.\.\. )?([\w-]+)(?:$|:)", cmake("--build", "--preset", "release", "--target", "help"), re.M))
        targets = [target for target in targets if target in known]
        if targets:
            cmake("--build", "--preset", "release", "--parallel", str(jobs), "--target", *targets)
        if "core_bench" in targets:
            self.core_rows = self._list_core_rows()
        if "attend-load" in targets:
            self.wire = self._load_wire()

    def _list_core_rows(self):
        run = subprocess.run([self.bin / "core_bench", "--benchmark_list_tests"], check=True, capture_output=True, text=True)
        return [line.removesuffix("/iterations:1") for line in run.stdout.split()]

    def _load_wire(self):
        path = self.root / "tests" / "bench" / "rpc" / "rpc_bench.py"
        spec = importlib.util.spec_from_file_location(f"rpc_bench_of_{self.name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def has(self, case):
        return self.wire is not None if isinstance(case, WireLoad) else set(case.rows) <= set(self.core_rows)


def git(*words):
    return subprocess.run(["git", "-C", ROOT, *words], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@contextlib.contextmanager
def base_tree(commit):
    """The tree of `commit`, detached, for as long as it is needed."""
    root = ROOT / "build" / "compare" / "base"
    def remove():
        subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", "--force", root], check=False,
                       stderr=subprocess.DEVNULL)
    remove()  # What an interrupted run left.
    git("worktree", "add", "--quiet", "--detach", str(root), commit)
    try:
        yield root
    finally:
        remove()


def order(round_):
    return ("base", "new") if round_ % 2 == 0 else ("new", "base")


def measure(sides, cases, rounds):
    """{row: {side: values}}, of which pairs have the same index."""
    values = {row: {name: [] for name in sides} for case in cases for row in case.rows}
    for round_ in range(rounds):
        for case in cases:
            for name in order(round_):
                if sides[name].has(case):
                    for row, value in case.measure(sides[name]).items():
                        values[row][name].append(value)
        print(f"round {round_ + 1} of {rounds}", flush=True)
    return values


def times(row, values):
    return values if SMALLER_IS_BETTER.search(row) else [1 / value for value in values]


def judge(values):
    """One dictionary a row: name, verdict (compared, new, gone), both medians, and what was compared."""
    rows = []
    for name, sides in values.items():
        base, new = sides["base"], sides["new"]
        row = {"name": name, "base": base, "new": new}
        if base and new:
            ratio, lower, upper = paired.ratio_interval(times(name, base), times(name, new))
            row.update(verdict="compared", ratio=ratio, lower=lower, upper=upper)
        elif base or new:
            row["verdict"] = "gone" if base else "new"
        else:
            row["verdict"] = "skipped on both sides"
        rows.append(row)
    return rows


def below(rows, limit):
    return [row for row in rows if row["verdict"] == "gone" or (row["verdict"] == "compared" and row["lower"] < limit)]


def table(rows):
    lines = [f"{'row':50s} {'base':>10s} {'new':>10s}  base time / new time [95 % interval]; above 1: new is faster"]
    for row in rows:
        medians = "".join(f" {statistics.median(row[side]):10.4g}" if row[side] else f" {'-':>10s}" for side in ("base", "new"))
        found = f"{row['ratio']:.4f} [{row['lower']:.4f}, {row['upper']:.4f}]" if "ratio" in row else row["verdict"]
        lines.append(f"{row['name']:50s}{medians}  {found}")
    return "\n".join(lines)


def choose(sides, rows):
    """The cases with a row that `rows` names, of either side, in the order of this tree's."""
    names = dict.fromkeys(sides["new"].core_rows + sides["base"].core_rows)
    cases = [CoreCase(name) for name in names if rows.search(name)]
    return cases + [load for load in WIRE_LOADS if any(map(rows.search, load.rows))]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="the commit to compare with")
    parser.add_argument("--rows", type=re.compile, default=re.compile(SPEED), help="only rows that match this")
    parser.add_argument("--rounds", type=int, default=10, help=f"at least {MIN_ROUNDS}")
    parser.add_argument("--limit", type=float, help="fail when a row's lower limit is below this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "bench" / "compare.json")
    options = parser.parse_args()
    if options.rounds < MIN_ROUNDS:
        parser.error(f"--rounds {options.rounds}: fewer than {MIN_ROUNDS} say too little")
    return options


def main():
    options = parse()
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("bench-compare needs two cores: one for the server, one for the load generator")
    targets = ["core_bench", "attend-server", "attend-load"]
    if not any(options.rows.search(row) for load in WIRE_LOADS for row in load.rows):
        targets = ["core_bench"]
    elif options.rows.pattern.startswith(("^rpc/", "^overload/")):
        targets = ["attend-server", "attend-load"]
    commit = git("rev-parse", "--verify", options.base + "^{commit}")
    with base_tree(commit) as root:
        sides = {"base": Side("base", root, commit[:12]),
                 "new": Side("new", ROOT, git("describe", "--always", "--dirty", "--abbrev=12"))}
        for side in sides.values():
            side.build(targets, options.jobs)
        cases = choose(sides, options.rows)
        if not cases:
            sys.exit(f"no row matches {options.rows.pattern!r}")
        rows = judge(measure(sides, cases, options.rounds))
    report = {"machine": results.machine(), "base": sides["base"].label, "new": sides["new"].label, "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{sides['base'].label} -> {sides['new'].label}, {results.machine()}\n{table(rows)}")
    if options.limit is not None and (failed := below(rows, options.limit)):
        sys.exit(f"slower than the limit {options.limit}, or gone: " + ", ".join(row["name"] for row in failed))


if __name__ == "__main__":
    main()
