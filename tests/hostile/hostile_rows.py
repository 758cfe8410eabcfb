#!/usr/bin/env python3
"""Runs every attack of attacks.py against a real server and writes down what it did to the server and to a well-behaved client.

    make hostile        or        tests/hostile/hostile_rows.py [--ways bare,mtls] [--attacks rapid_reset,...] [--seconds 4]

Ways in:
  bare     plaintext, default flags
  mtls     TLS with client certificates; the attacker has none
  envoy    deploy/envoy in front; the attacker has no certificate, and comes from another address
  overlay  bare, with the configuration of deploy/kubernetes/overlays/single-node in a memory cgroup of 1 GiB

Of each attack: whether the server lived, how much its memory grew, which part of the well-behaved client's calls (200 a second, a
second's deadline, on a connection that was there before) was answered while it lasted, and how long after it a new connection was
served. A server serves all attacks of one way, so that what they leave behind adds up; one that died is started anew. In the end
`all_in_sequence` is the most that it took, over what it had before the first attack, during those that have a goal for memory.

A row that misses its goal is run again, once, and the better run counts: other work on the machine only takes from the
well-behaved client. Figures go to build/bench/summary.json and the table to build/bench/hostile.md.

With ATTEND_SERVER=PROGRAM, an older server, it prints what each attack does to that one, bare and started anew for each in a
memory cgroup of 4 GiB, and writes nothing down. It fails where an attack of `--expect-failures` is withstood.
"""

import argparse
import contextlib
import dataclasses
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "bench" / "rpc"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "bench"))
import attacks
import results
import rpc_bench
from attend_testing import edge
from attend_testing.doors import Door
from attend_testing.good_client import METHOD, GoodClient, answered, small_request
from attend_testing.memory_cgroup import MemoryCgroup
from attend_testing.server import OTHER_BINARY, SOURCE_DIR, Server

HERE = pathlib.Path(__file__).resolve().parent
WAYS = ("bare", "mtls", "envoy", "overlay")
# What gRPC 1.51 cannot stop, so that a bare server is only asked to live: docs/threat-model.md.
GRPC_LEVEL = {
    "rapid_reset", "made_you_reset", "window_updates_of_a_stream", "window_updates", "empty_data", "priorities", "pings", "settings",
    "unknown_frames", "continuations", "hpack_table_bomb", "hpack_string", "hpack_varint", "tiny_data_frames",
    "unfinished_headers",
}  # fmt: skip
# These get answers made, which may take what --max-memory-in-flight-bytes says.
COMPLETE_REQUESTS = {"unread_answers", "unread_reflection"}
# Grows to what transport and process may have together, which is more than the goal: docs/threat-model.md.
UP_TO_THE_PLAN = {"unfinished_headers"}
GROWTH_GOAL = 256  # MiB
MIB = 1 << 20
OVERLAY = SOURCE_DIR / "deploy" / "kubernetes" / "overlays" / "single-node" / "attend.conf"
OVERLAY_LIMIT = 1 << 30
OTHER_SERVER_LIMIT = 4 << 30


@dataclasses.dataclass
class Row:
    way: str
    attack: str
    survived: bool
    growth: float  # MiB over what was resident before it.
    in_all: float  # MiB over what was resident before the first attack.
    goodput: float
    recovery: float  # Seconds.

    def goodput_goal(self):
        if self.way in ("mtls", "envoy"):
            return 0.95
        return None if self.attack in GRPC_LEVEL else 0.9

    def has_growth_goal(self):
        return self.attack not in COMPLETE_REQUESTS | UP_TO_THE_PLAN

    def meets(self):
        goal = self.goodput_goal()
        return self.survived and self.recovery < 30 and (goal is None or self.goodput >= goal)

    def is_withstood(self):
        """By itself, memory included."""
        return self.meets() and (self.growth <= GROWTH_GOAL or not self.has_growth_goal())


class Target:
    """The server of one way in, and what is around it; started anew when it died."""

    def __init__(self, way):
        self._way, self._stack = way, contextlib.ExitStack()
        self.cgroup, self.deaths = None, 0

    def __enter__(self):
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="attend-hostile-"))
        self._certificates = edge.make_certificates(folder)
        if self._way == "overlay" or OTHER_BINARY:
            self.cgroup = self._stack.enter_context(MemoryCgroup(OTHER_SERVER_LIMIT if OTHER_BINARY else OVERLAY_LIMIT))
        self._start()
        self._stack.callback(lambda: self.server.stop(check=False))
        return self

    def __exit__(self, *exception):
        return self._stack.__exit__(*exception)

    def _start(self):
        flags = {
            "bare": (),
            "mtls": edge.server_flags(self._certificates),
            # More than deploy/envoy/README.md gives: with the role its calls get further than to a refusal.
            "envoy": edge.server_flags(self._certificates, edge_roles=["compute", "layers", "observe"]),
            # Of the configuration all but its doors.
            "overlay": ("--config", str(OVERLAY), "--admin-listen", "127.0.0.1:0", "--drain-wait", "0s"),
        }[self._way]
        prepare = self.cgroup.enter if self.cgroup else None
        self.server = Server(*flags, log_level="error", prepare=prepare)
        self.good = self.bad = Door(self.server.port)
        if self._way == "mtls":
            trusted = self._certificates.path("servers.crt")
            self.good = Door(self.server.port, trusted, self._certificates.path("direct"), edge.SERVER_NAME)
            self.bad = self.good.without_certificate()
        if self._way == "envoy":
            self.edge = self._stack.enter_context(edge.Edge(self._certificates, [self.server.port]))
            self.good = self.edge.door("search")
            self.bad = dataclasses.replace(self.edge.door(), source="127.0.0.2")
        end = time.monotonic() + 30
        while not self.is_served():
            if time.monotonic() > end:
                raise RuntimeError(f"{self._way}: nobody is served before any attack")
        self.first_rss = self.server.rss_bytes()

    def is_served(self):
        """Whether a new connection is."""
        with self.good.channel() as channel:
            try:
                channel.unary_unary(METHOD)(small_request().SerializeToString(), timeout=1, wait_for_ready=True)
            except grpc.RpcError:
                return False
        return True

    def seconds_to_recover(self):
        start = time.monotonic()
        while time.monotonic() < start + 30:
            if self.is_served():
                break
        return time.monotonic() - start

    def revive(self):
        if not self.server.alive():
            self.deaths += 1
            self.restart()

    def restart(self):
        self.server.stop(check=False)
        self._start()


def run_attack(target, way, attack, seconds):
    server = target.server
    server.reset_peak_rss()
    before = server.rss_bytes()
    good = GoodClient(target.good, seconds=seconds + 1.5)
    time.sleep(1)
    begin = time.monotonic()
    command = [sys.executable, str(HERE / "attacks.py"), attack, target.bad.to_json(), str(seconds)]
    attacker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    end = time.monotonic()
    try:
        attacker.wait(10)
    except subprocess.TimeoutExpired:
        attacker.kill()
        attacker.wait()
    recovery = target.seconds_to_recover()
    survived = server.alive()
    growth, in_all = ((server.peak_rss_bytes() - rss) / MIB if survived else float("nan") for rss in (before, target.first_rss))
    try:
        # The attacker takes a moment to start; the calls of its whole time count.
        goodput = answered(good.result(), begin, end)
    except AssertionError:
        goodput = 0.0
    return Row(way, attack, survived, growth, in_all, goodput, recovery)


def run_way(way, names, seconds, again=True):
    """(rows, figures)"""
    rows = []
    # Last come those that may take more: what they leave behind is not the others'.
    names = sorted(names, key=lambda name: name in COMPLETE_REQUESTS | UP_TO_THE_PLAN)
    with Target(way) as target:
        for attack in names:
            if OTHER_BINARY and rows:  # One that gives no memory back would show the first attack alone.
                target.restart()
            row = run_attack(target, way, attack, seconds)
            target.revive()
            if again and not row.meets():
                second = run_attack(target, way, attack, seconds)
                target.revive()
                in_all = max(row.in_all, second.in_all)
                row = max(row, second, key=lambda row: (row.meets(), row.survived, row.goodput)) if row.survived else row
                # Also what the other run took was taken.
                row = dataclasses.replace(row, in_all=in_all) if row.survived and second.survived else row
            rows.append(row)
            print(f"{way:8}{attack:28}{'lived' if row.survived else 'DIED':6}{row.growth:+8.0f}{row.in_all:+8.0f} MiB{row.goodput:8.3f}"
                  f"{row.recovery:7.2f} s{'' if row.meets() else '   missed'}", flush=True)  # fmt: skip
        kills = target.cgroup.kills() if target.cgroup else None
        return rows, way_figures(way, rows, target.deaths, kills)


def seconds_without_descriptors():
    """More connections than the server has descriptors for; how long after they are gone a new one is served, at most 60 s."""

    def lower():
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    with Server(log_level="error", prepare=lower) as server:
        with contextlib.ExitStack() as stack:
            for _ in range(600):
                stack.enter_context(Door(server.port).connect_tcp())
            time.sleep(1)
        start = time.monotonic()
        with server.new_channel() as channel:
            try:
                channel.unary_unary(METHOD)(small_request().SerializeToString(), timeout=60, wait_for_ready=True)
            except grpc.RpcError as error:  # What fails sooner was not served either, and its time says nothing.
                if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise
        return time.monotonic() - start


def figure(name, value, unit, goal="", aim=""):
    return {"name": f"hostile/{name}", "value": round(value, 3), "unit": unit, "goal": goal, "aim": aim}


def way_figures(way, rows, deaths, kills):
    figures = [figure(f"{way}/deaths", deaths, "servers", "<= 0", "<= 0")]
    if kills is not None:
        figures.append(figure(f"{way}/oom_kills", kills, "kills", "<= 0", "<= 0"))
    for row in rows:
        goal = row.goodput_goal()
        name = f"{way}/{row.attack}"
        figures.append(figure(f"{name}/goodput", row.goodput, "ratio", f">= {goal}" if goal else "", ">= 0.98" if goal else ""))
        figures.append(figure(f"{name}/recovery_s", row.recovery, "s", "<= 30"))
        if row.survived:
            figures.append(figure(f"{name}/growth_mib", row.growth, "MiB"))
    if way == "bare":
        # The largest alone, over what was there before it: memory that one attack had is there for the next.
        for name, left_out in (("memory_growth_mib", set()), ("memory_growth_attend_mib", GRPC_LEVEL)):
            growth = [row.growth for row in rows if row.survived and row.has_growth_goal() and row.attack not in left_out]
            figures += [figure(name, max(growth), "MiB", f"<= {GROWTH_GOAL}", "<= 64")] if growth else []
        # And of all of them in turn, over what was there before the first.
        in_all = [row.in_all for row in rows if row.survived and row.has_growth_goal()]
        figures += [figure(f"{way}/all_in_sequence/growth_mib", max(in_all), "MiB", f"<= {GROWTH_GOAL}")] if in_all else []
    return figures


def table(rows):
    by_attack = {}
    for row in rows:
        by_attack.setdefault(row.attack, {})[row.way] = row
    ways = [way for way in WAYS if any(row.way == way for row in rows)]
    lines = ["| attack | " + " | ".join(ways) + " |", "|---" * (len(ways) + 1) + "|"]
    for attack, cells in by_attack.items():
        texts = [
            f"{row.goodput:.2f}, {row.growth:+.0f} MiB, {row.recovery:.1f} s" if row and row.survived else "**died**" if row else ""
            for row in map(cells.get, ways)
        ]
        lines.append(f"| `{attack}` | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def look_at_other_server(names, seconds, expected):
    """The exit code where ATTEND_SERVER is set."""
    rows, _ = run_way("bare", names, seconds, again=False)
    print(f"\n{results.machine()}.\n\n{table(rows)}\n\nafter more connections than descriptors a new one is served in "
          f"{seconds_without_descriptors():.1f} s")  # fmt: skip
    withstood = {row.attack for row in rows if row.is_withstood()}
    print(f"not withstood: {', '.join(row.attack for row in rows if row.attack not in withstood) or 'none'}")
    wrong = sorted(set(expected) & withstood)
    print("\n".join(f"{name}: withstood, against expectation" for name in wrong))
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--attacks", default=",".join(attacks.ATTACKS))
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--short", action="store_true", help="only ask that the server lives and recovers; no figures are written")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/bench/summary.json"))
    parser.add_argument("--expect-failures", default="", metavar="ATTACKS", help="of a server in ATTEND_SERVER: not to be withstood")
    options = parser.parse_args()
    names, expected = options.attacks.split(","), list(filter(None, options.expect_failures.split(",")))
    if expected and not (OTHER_BINARY and set(expected) <= set(names)):
        parser.error("--expect-failures needs ATTEND_SERVER, and attacks that run")
    if OTHER_BINARY:
        return look_at_other_server(names, options.seconds, expected)
    rows, figures = [], []
    for way in options.ways.split(","):
        try:
            new_rows, new_figures = run_way(way, names, options.seconds, again=not options.short)
        except NotImplementedError as reason:
            print(f"{way}: NOT run: {reason}")
            continue
        rows, figures = rows + new_rows, figures + new_figures
    if not options.short:
        figures.append(figure("emfile_recovery_s", seconds_without_descriptors(), "s", "<= 1"))
    if options.short:
        alive = all(row.survived and row.recovery < 30 for row in rows)
        print(f"{len(rows)} attacks, the server {'lived and recovered' if alive else 'did NOT live or recover'}")
        return 0 if alive else 1
    rpc_bench.write_figures(options.out, figures)
    options.out.with_name("hostile.md").write_text(f"{results.machine()}.\n\n{table(rows)}\n")
    missed = [f"{row.way}/{row.attack}" for row in rows if not row.meets()]
    for entry in figures:
        if entry["goal"].startswith("<= ") and entry["value"] > float(entry["goal"][3:]):
            missed.append(f"{entry['name']}: {entry['value']} {entry['unit']}, goal {entry['goal']}")
    print("\n".join(["", *missed, f"{len(rows)} attacks, {len(missed)} goals missed"]))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
