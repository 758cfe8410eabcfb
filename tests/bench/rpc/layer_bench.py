#!/usr/bin/env python3
"""Measures uploading and loading a layer of 256 MiB.

    make bench-layers      or        tests/bench/rpc/layer_bench.py --bin build/release/bin --rounds 5

- layer/upload/256MiB/MBps_over_echo: the rate at which CreateLayer takes the layer, from the first byte to the answer,
  by which time it is on the disk, packed and can be called; over the rate at which attend-echo --discard takes the same
  bytes and does nothing with them. Medians of runs in turns; both get the same cores.
- .../in_memory/MBps_over_echo: the same without a data folder.
- .../MBps_over_disk: over the rate at which one process writes and syncs as many bytes to the same disk, which no upload
  that survives a loss of power can exceed.
- layer/load/256MiB_s: what a start takes longer with this layer in its data folder than with an empty one: every byte
  checked against its SHA-256 and the weights packed. `packing_share` is the part of it that packing takes.

Writes the figures into build/bench/summary.json, merging with what is there.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import results

DIM = 4096  # Query, key, value and output of [4096, 4096] FLOAT32: 4 * 64 MiB.


def write_layer(path):
    size = 4 * DIM * DIM
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    header = {f"{name}.weight": {"dtype": "F32", "shape": [DIM, DIM], "data_offsets": [i * size, (i + 1) * size]}
              for i, name in enumerate(names)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pattern = b"".join(bytes([0, 0, i * 37 % 128, 0x3C + i % 2]) for i in range(4096))
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _ in range(4 * size // len(pattern)):
            file.write(pattern)


class Server:
    def __init__(self, *command):
        self.folder = tempfile.TemporaryDirectory(prefix="attend-bench-")
        port_file, self.log = pathlib.Path(self.folder.name) / "port", pathlib.Path(self.folder.name) / "log"
        start = time.perf_counter()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([str(word) for word in (*command, "--port-file", port_file)], stderr=log)
        while not port_file.exists():
            if self.process.poll() is not None:
                raise RuntimeError(f"{command[0]} did not start:\n{self.log.read_text()}")
            time.sleep(0.001)
        self.seconds = time.perf_counter() - start
        self.target = "127.0.0.1:" + port_file.read_text().strip()

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=60)
        log = self.log.read_text()
        self.folder.cleanup()
        return log


class Bench:
    def __init__(self, options, folder):
        self.options, self.bin = options, pathlib.Path(options.bin)
        self.layer, self.data = pathlib.Path(folder) / "layer.safetensors", pathlib.Path(folder) / "data"
        write_layer(self.layer)
        self.figures = []

    def attend(self, data):
        flags = ("--data-dir", data) if data else ()
        return Server(self.bin / "attend-server", "--listen", "127.0.0.1:0", "--drain-wait", "0s", *flags)

    def disk_rate(self):
        content = self.layer.read_bytes()
        start = time.perf_counter()
        with open(self.layer.with_name("plain"), "wb", buffering=0) as file:
            for at in range(0, len(content), 1 << 20):
                file.write(content[at:at + (1 << 20)])
            os.fsync(file.fileno())
        return len(content) / 1e6 / (time.perf_counter() - start)

    def report(self, name, value, unit, goal="-"):
        self.figures.append({"name": name, "value": round(value, 4), "unit": unit, "goal": goal})
        print(f"{name:45s} {value:10.4g} {unit:10s} goal {goal}", flush=True)

    def upload_rate(self, server):
        run = subprocess.run([self.bin / "attend-stream", "--target", server.target, "--file", self.layer],
                             check=True, capture_output=True, text=True)
        return self.layer.stat().st_size / 1e6 / json.loads(run.stdout)["seconds"]

    def upload(self):
        servers = [self.attend(self.data), self.attend(None), Server(self.bin / "attend-echo", "--discard")]
        try:
            for server in servers:
                self.upload_rate(server)  # Warms up.
            rounds = [[*map(self.upload_rate, servers), self.disk_rate()] for _ in range(self.options.rounds)]
        finally:
            for server in servers:
                server.stop()
        name = "layer/upload/256MiB/"
        self.report(name + "MBps", statistics.median(disk for disk, *_ in rounds), "MB/s")
        self.report(name + "MBps_over_echo", statistics.median(d / e for d, _, e, _ in rounds), "ratio", ">= 0.5")
        self.report(name + "in_memory/MBps_over_echo", statistics.median(m / e for _, m, e, _ in rounds), "ratio")
        self.report(name + "MBps_over_disk", statistics.median(d / f for d, _, _, f in rounds), "ratio")

    def load(self):
        loads, shares = [], []
        for _ in range(self.options.rounds):
            empty = self.attend(self.data.with_name("empty"))
            empty.stop()
            full = self.attend(self.data)
            packing = float(re.search(r"packing_ms=([0-9.e+]+)", full.stop()).group(1)) / 1e3
            loads.append(full.seconds - empty.seconds)
            shares.append(packing / loads[-1])
        self.report("layer/load/256MiB_s", statistics.median(loads), "s")
        self.report("layer/load/256MiB/packing_share", statistics.median(shares), "ratio")

    def write(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = json.loads(path.read_text()) if path.exists() else []
        names = {figure["name"] for figure in self.figures}
        path.write_text(json.dumps([f for f in kept if f["name"] not in names] + self.figures, indent=1) + "\n")

    def table(self):
        """Markdown, for RESULTS.md."""
        rows = [f"| {f['name']} | {f['value']:.4g} | {f['unit']} | {f['goal']} |" for f in self.figures]
        lines = ["| figure | value | unit | goal |", "|---|---|---|---|", *rows]
        return f"{results.machine()}. Written by `make bench-layers`; layer_bench.py says what each is.\n\n" + "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="build/release/bin", help="where the binaries are")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/bench/summary.json"))
    parser.add_argument("--results", type=pathlib.Path, help="also rewrite the table in this RESULTS.md")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where layer and data folder are put; its disk is part of what is measured")
    options = parser.parse_args()
    os.environ.pop("ATTEND_DATA_DIR", None)
    with tempfile.TemporaryDirectory(prefix="attend-layer-bench-", dir=options.folder) as folder:
        bench = Bench(options, folder)
        bench.upload()
        bench.load()
    bench.write(options.out)
    if options.results:
        results.write_section(options.results, "Layers", bench.table())


if __name__ == "__main__":
    main()
