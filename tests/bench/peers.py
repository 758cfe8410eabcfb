#!/usr/bin/env python3
"""Measures attend's core against PyTorch, ONNX Runtime and NumPy: same inputs, same threads, same run.

Each program is a process of its own that stays alive, and they take turns, so that a noisy machine is noisy for all;
what counts is the median of the rounds' ratios. Each result is compared with ours, so that nothing else is measured by
mistake. attend's time is taken in each peer's own layout: [heads, tokens, dim] for PyTorch and NumPy, [tokens, heads *
dim] for ONNX Runtime. Writes build/bench/peers.json and the table in tests/bench/RESULTS.md.

    make bench-peers        or        build/venv/bin/python tests/bench/peers.py --bin build/release/bin

A ratio is the peer's time divided by attend's: above 1, attend is faster.
"""

import argparse
import dataclasses
import importlib.metadata
import itertools
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import results

HERE = pathlib.Path(__file__).resolve().parent
PEERS = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "numpy": "NumPy"}

# NumPy holds all scores at once; beyond this many it is left out, as nobody would use it there.
NUMPY_SCORES = 2048 * 2048

# Threads that wait for work spin for a while first, in all peers. Nobody is measured meanwhile.
SPINNING_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Case:
    tokens: int
    dim: int
    heads: int
    kv_heads: int = 0  # 0: as many as heads.
    causal: bool = False
    window: int = 0  # Keys that a query sees, itself included; 0: all.
    mask: bool = False
    weights: bool = False
    bf16: bool = False  # BFLOAT16 and PRECISION_FAST.
    peers: tuple = ("torch", "onnxruntime", "numpy")

    @property
    def name(self):
        parts = [f"T{self.tokens}", f"D{self.dim}", f"H{self.heads}"]
        parts += [f"K{self.kv_heads}"] * bool(self.kv_heads)
        for label, given in (("causal", self.causal), (f"window{self.window}", self.window), ("mask", self.mask),
                             ("weights", self.weights), ("bf16-fast", self.bf16)):
            parts += [label] * bool(given)
        return "/".join(parts)

    def flops(self):
        """Of the products alone, for query-key pairs that causality and window leave."""
        pairs = self.tokens**2
        if self.causal:
            reach = min(self.window or self.tokens, self.tokens)
            pairs = reach * (reach + 1) // 2 + (self.tokens - reach) * reach
        return 4 * self.heads * pairs * self.dim


def all_cases(sizes):
    """Every combination of sizes, then one feature at a time."""
    cases = [Case(tokens, dim, heads, causal=causal)
             for tokens, dim, heads, causal in itertools.product(sizes, (64, 128), (1, 8), (False, True))]
    cases += [Case(tokens, dim, 8, causal=causal, bf16=True, peers=("torch",))
              for tokens, dim, causal in itertools.product(sizes, (64, 128), (False, True))]
    for tokens in (512, 2048):
        if tokens not in sizes:
            continue
        cases += [
            Case(tokens, 64, 8, mask=True, peers=("torch", "onnxruntime")),
            Case(tokens, 64, 8, kv_heads=2, causal=True, peers=("torch", "onnxruntime")),
            Case(tokens, 64, 8, causal=True, window=256, peers=("torch", "onnxruntime")),
            Case(tokens, 64, 8, weights=True, peers=("torch", "numpy")),
        ]
    return cases


class Program:
    """A process that takes commands on its standard input and answers each with a line."""

    def __init__(self, command, threads):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
        environment |= {"OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True, env=environment)

    def ask(self, command):
        """Milliseconds."""
        time.sleep(SPINNING_SECONDS)
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "it ended"}')
        if "ms" not in answer:
            raise RuntimeError(f"{self._process.args[:3]}: {answer['error']} on {command}")
        return answer["ms"]

    def stop(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)


def to_bf16(array):
    """The nearest BFLOAT16 numbers, ties to even, as their bits. Finite numbers alone."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    return ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)


class Inputs:
    """The files that a case's tensors are in, the same numbers whatever the layout."""

    def __init__(self, case, directory):
        self._case, self._directory = case, directory
        rng = np.random.default_rng(0)
        self._files = {}
        for name in ("query", "key", "value"):
            heads = case.heads if name == "query" else case.kv_heads or case.heads
            tensor = rng.standard_normal((heads, case.tokens, case.dim), dtype=np.float32)
            for merged, array in ((False, tensor), (True, tensor.transpose(1, 0, 2))):
                self._files[name, merged] = self._write(f"{name}-{merged}", to_bf16(array) if case.bf16 else array)
        if case.mask:
            self._files["mask"] = self._write("mask", rng.random((case.tokens, case.tokens)) < 0.7)

    def _write(self, name, array):
        path = self._directory / name
        np.ascontiguousarray(array).tofile(path)
        return str(path)

    def command(self, merged, threads, repeats):
        case = self._case
        command = {name: self._files[name, merged] for name in ("query", "key", "value")}
        command |= {"heads": case.heads, "kv_heads": case.kv_heads or case.heads, "tokens": case.tokens,
                    "dim": case.dim, "merged": merged, "causal": case.causal, "weights": case.weights,
                    "threads": threads, "repeats": repeats, "type": "bfloat16" if case.bf16 else "float32",
                    "fast": case.bf16}
        if case.window:
            command["window_left"] = case.window - 1
        if case.mask:
            command["mask"] = self._files["mask"]
        return command


class Bench:
    def __init__(self, options, directory):
        self._options, self._directory = options, pathlib.Path(directory)
        self.rows = []

    def run(self):
        for threads in self._options.threads:
            programs = {"attend": Program([pathlib.Path(self._options.bin) / "attend-core-run"], threads)}
            for peer in PEERS:
                programs[peer] = Program([sys.executable, HERE / "peer_worker.py", peer, "--threads", threads], threads)
            for case in filter(lambda case: self._options.cases.search(case.name), all_cases(self._options.tokens)):
                inputs = Inputs(case, self._directory)
                for peer in case.peers:
                    if peer != "numpy" or case.heads * case.tokens**2 <= NUMPY_SCORES:
                        self._compare(case, inputs, peer, programs, threads)
            for program in programs.values():
                program.stop()

    def _compare(self, case, inputs, peer, programs, threads):
        repeats = int(np.clip(self._options.seconds * 60e9 / case.flops(), 2, 300))
        command = inputs.command(peer == "onnxruntime", threads, repeats)
        self._check(case, command, peer, programs)
        rounds = [(programs["attend"].ask(command), programs[peer].ask(command)) for _ in range(self._options.rounds)]
        ours, theirs = (statistics.median(times) for times in zip(*rounds, strict=True))
        row = {"case": case.name, "threads": threads, "ours_ms": round(ours, 4), "peer": peer,
               "peer_ms": round(theirs, 4), "ratio": round(statistics.median(t / o for o, t in rounds), 3),
               "ours_gflops": round(case.flops() / ours / 1e6, 1)}
        self.rows.append(row)
        print(f"{case.name:32s} x{threads}  {ours:9.3f} ms {row['ours_gflops']:7.1f} GFLOP/s   "
              f"{PEERS[peer]:13s} {theirs:9.3f} ms   {row['ratio']:6.2f}", flush=True)

    def _check(self, case, command, peer, programs):
        """Both compute the same thing."""
        outputs = []
        for name in ("attend", peer):
            path = self._directory / f"output-{name}"
            programs[name].ask(command | {"output": str(path), "repeats": 1})
            bits = np.fromfile(path, "<u2").astype(np.uint32) << 16 if case.bf16 else np.fromfile(path, "<u4")
            outputs.append(bits.view(np.float32))
        # Of BFLOAT16 each rounds its weights and its result.
        bounds = {"atol": 0.02, "rtol": 0.02} if case.bf16 else {"atol": 1e-5, "rtol": 1e-4}
        np.testing.assert_allclose(*outputs, **bounds, err_msg=f"{case.name} by {peer}")


def table(rows):
    """Markdown: a line for each case, with the ratio to each peer."""
    lines = ["| case | threads | attend | " + " | ".join(PEERS.values()) + " |",
             "|---|---|---|" + "---|" * len(PEERS)]
    for (threads, case), group in itertools.groupby(rows, key=lambda row: (row["threads"], row["case"])):
        group = {row["peer"]: row for row in group}
        first = next(iter(group.values()))
        cells = [f"{group[peer]['peer_ms']:.3g} ms, **{group[peer]['ratio']:.2f}**" if peer in group else ""
                 for peer in PEERS]
        ours = f"{first['ours_ms']:.3g} ms, {first['ours_gflops']:.0f} GFLOP/s"
        lines.append(f"| {case} | {threads} | {ours} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def body(rows):
    versions = ", ".join(f"{title} {importlib.metadata.version(name)}" for name, title in PEERS.items())
    return f"""{results.machine()}. {versions}. Written by `make bench-peers`.

T tokens (queries and keys), D head size, H heads, K key/value heads; float32, or `bf16-fast`: BFLOAT16 and PRECISION_FAST with what
kernels the processor has for it. Each cell: the peer's time and, in bold, that
time divided by attend's in the same layout: above 1, attend is faster. Causal cases count the live half of the work.

{table(rows)}"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="build/release/bin", help="where the binaries are")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/bench/peers.json"))
    parser.add_argument("--results", type=pathlib.Path, help="also rewrite the table in this RESULTS.md")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1, help="about what one measurement takes, if it can")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 512, 2048, 4096])
    parser.add_argument("--cases", type=re.compile, default=re.compile(""), help="only cases whose name matches")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="attend-peers-") as directory:
        bench = Bench(options, directory)
        bench.run()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(bench.rows, indent=1) + "\n")
    if options.results:
        results.write_section(options.results, "Attention, against other implementations", body(bench.rows))


if __name__ == "__main__":
    main()
