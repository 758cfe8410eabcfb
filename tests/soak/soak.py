#!/usr/bin/env python3
"""A server at 70 % of its peak for half an hour, among clients that crash, cancel and mean harm: its memory, descriptors and
threads stay what they were after the warm-up.

    make soak        or        tests/soak/soak.py [--seconds 1800] [--warm-up 400] [--attacks idle_tcp,...]

The warm-up has to outlast the first turn of all attacks, four to five minutes: each takes memory at its first time. So a run of a few
minutes shows that the parts work, and its verdict on memory says nothing.

`--planted-leak LIBRARY` (leak.cc) asks whether the soak would see a leak: PLANTED_SECONDS among the few attacks of PLANTED_ATTACKS, which
have had their turns after PLANTED_WARM_UP, once as the server is, when neither memory nor descriptors may grow, and once
with a library in it that loses both, when both have to be found. The judge is the same; the tolerance is that of minutes.

The load is attend-load's: attention of 512 tokens through a layer by name, at 0.7 of the rate that it reaches by itself. Beside
it, over and over: clients that are killed amid a call, clients that cancel, uploads that break off, layers that are replaced and
deleted, and every attack of tests/hostile/attacks.py but one, three seconds each, one at a time. Figures go to build/bench/summary.json.
"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import grpc
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "hostile"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "bench" / "rpc"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "bench"))
import attacks
import judge
import rpc_bench
from attend_testing.doors import Door
from attend_testing.layers import Weights, chunks, header, upload
from attend_testing.load import heavy_request
from attend_testing.server import BUILD_DIR, Server
from attend_testing.stubs import layers_pb, pb
from attend_testing.tensors import to_tensor

TESTS = pathlib.Path(__file__).resolve().parents[1]
METHOD = "/attend.v1.AttentionService/Attend"
SAMPLE_SECONDS = 5
# Without unfinished_headers: what it takes, up to 1.1 GiB, stays for some ten seconds after it (docs/hostile.md), and samples from
# that time say nothing of a leak.
SOAK_ATTACKS = [name for name in attacks.ATTACKS if name != "unfinished_headers"]

PLANTED_SECONDS, PLANTED_WARM_UP = 120, 40
PLANTED_ATTACKS = ("odd_headers", "impossible_messages")
# Less than the soak's, so that calls do not pile up where others use the machine: what piles up takes memory at its first time.
PLANTED_LOAD, PLANTED_CONCURRENCY = 0.3, 8
# MiB an hour: planted, and what memory that comes and goes may look like in so short a time.
PLANTED_LEAK, PLANTED_TOLERANCE = 1600, 700
PLANTED_DESCRIPTORS = 1800  # An hour.


def sample(server, start):
    process = pathlib.Path(f"/proc/{server.pid}")
    return judge.Sample(time.monotonic() - start, server.rss_bytes(), len(os.listdir(process / "fd")), len(os.listdir(process / "task")))


def load(server, request, seconds, **flags):
    """The process of attend-load."""
    words = itertools.chain.from_iterable((f"--{name}", str(value)) for name, value in flags.items())
    command = [BUILD_DIR / "bin" / "attend-load", "--target", server.address, "--method", METHOD, "--request", request,
               "--seconds", str(seconds), *words]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def peak_rate(server, request):
    told, _ = load(server, request, 5, concurrency=8).communicate()
    return json.loads(told)["rps"]


def crashing_client(door):
    """A process that is killed in the midst of its calls."""
    command = [sys.executable, "-m", "attend_testing.good_client", door.to_json(), "50", "30"]
    client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1.5)
    client.kill()
    client.wait()


def cancelling_client(server):
    with server.new_channel() as channel:
        stub = type(server.stub)(channel)
        calls = [stub.ScaledDotProductAttention.future(heavy_request(1 << 14), timeout=60) for _ in range(3)]
        time.sleep(0.2)
        for call in calls:
            call.cancel()


def layer_client(server):
    """Uploads, one of them broken off, and deletes."""
    data = Weights(2, dim=128).file()
    with server.new_channel() as channel:
        stub = type(server.layers)(channel)
        upload(stub, "soak/other", data, replace=True)

        def broken_off():
            yield header("soak/broken")
            yield chunks(data)[0]
            time.sleep(0.2)
            raise InterruptedError

        with contextlib.suppress(grpc.RpcError):
            stub.CreateLayer(broken_off(), timeout=5)
        stub.DeleteLayer(layers_pb.DeleteLayerRequest(name="soak/other"), timeout=10)


def hostile_client(door, name):
    subprocess.run([sys.executable, str(TESTS / "hostile" / "attacks.py"), name, door.to_json(), "3"], check=False,
                   stderr=subprocess.DEVNULL, timeout=60)  # fmt: skip


def disturb(server, names, stop, errors):
    """All of them in turn, of the attacks those in `names`, until `stop`."""
    door = Door(server.port)
    turns = itertools.cycle(names)
    while not stop.is_set():
        try:
            crashing_client(door)
            cancelling_client(server)
            layer_client(server)
            hostile_client(door, next(turns))
        except (OSError, grpc.RpcError, subprocess.SubprocessError) as error:
            # A busy server may refuse a layer; that it lives is looked at below.
            errors.append(str(error))
        stop.wait(1)


def run(seconds, names, part=0.7, concurrency=1000, environment=None):
    """(samples, what attend-load said, the rate that was asked for), of a server with `environment`, at `part` of its peak, among the
    attacks `names`"""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(Server("--data-dir", f"{folder}/layers", log_level="error", environment=environment))
        upload(server.layers, "soak/layer", Weights(1, dim=64).file())
        request = pathlib.Path(folder) / "request"
        embeddings = to_tensor(np.ones((512, 64), np.float32))
        request.write_bytes(pb.AttendRequest(layer_name="soak/layer", embeddings=embeddings).SerializeToString())
        rate = part * peak_rate(server, request)
        print(f"load: {rate:.0f} calls a second", flush=True)
        start, samples, stop, errors = time.monotonic(), [], threading.Event(), []
        calls = load(server, request, seconds, rate=rate, concurrency=concurrency, deadline=5)
        disturber = threading.Thread(target=disturb, args=(server, names, stop, errors))
        disturber.start()
        try:
            while time.monotonic() - start < seconds:
                time.sleep(SAMPLE_SECONDS)
                if not server.alive():
                    raise AssertionError(f"the server died:\n{server.log()[-3000:]}")
                samples.append(sample(server, start))
                if len(samples) % 12 == 0:
                    print(f"{samples[-1].seconds:6.0f} s {samples[-1].rss / judge.MIB:8.1f} MiB {samples[-1].descriptors} descriptors "
                          f"{samples[-1].threads} threads", flush=True)  # fmt: skip
        finally:
            stop.set()
            disturber.join()
            told, _ = calls.communicate()
        if len(errors) > len(samples):
            raise AssertionError(f"more disturbances failed than not, the last: {errors[-1]}")
        return samples, json.loads(told), rate


def planted_leak(library):
    """The exit code of `--planted-leak`."""
    leak = {"LD_PRELOAD": str(library), "PLANTED_LEAK_BYTES": str(PLANTED_LEAK * judge.MIB),
            "PLANTED_LEAK_DESCRIPTORS": str(PLANTED_DESCRIPTORS)}  # fmt: skip
    found = {}
    for name, environment in (("as it is", None), ("with a leak", leak)):
        samples, _, _ = run(PLANTED_SECONDS, PLANTED_ATTACKS, PLANTED_LOAD, PLANTED_CONCURRENCY, environment)
        later = [s for s in samples if s.seconds >= PLANTED_WARM_UP]
        found[name] = judge.faults(samples, PLANTED_WARM_UP, PLANTED_TOLERANCE * judge.MIB)
        print(f"{name}: memory {judge.growth_per_hour(later, 'rss') / judge.MIB:+.0f} MiB an hour, "
              f"descriptors {later[0].descriptors} to {later[-1].descriptors}; found: {found[name] or 'nothing'}", flush=True)  # fmt: skip
    # Threads of the server come when they are needed, which may be later than in the warm-up.
    kinds = ("resident memory", "descriptors")
    missed = [kind for kind in kinds if not any(fault.startswith(kind) for fault in found["with a leak"])]
    invented = [kind for kind in kinds if any(fault.startswith(kind) for fault in found["as it is"])]
    if invented or missed:
        print(f"planted leak: FAILED; found without a leak: {invented or 'nothing'}; not found with it: {missed or 'nothing'}")
        return 1
    print(f"planted leak: {PLANTED_LEAK} MiB and {PLANTED_DESCRIPTORS} descriptors an hour are found, and nothing without them")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=1800)
    parser.add_argument("--warm-up", type=int, default=400)
    parser.add_argument("--max-growth", type=float, default=1, help="MiB of resident memory an hour")
    parser.add_argument("--attacks", default=",".join(SOAK_ATTACKS))
    parser.add_argument("--planted-leak", type=pathlib.Path, metavar="LIBRARY", help="only ask whether a leak is found (4 minutes)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/bench/summary.json"))
    options = parser.parse_args()
    if options.planted_leak:
        return planted_leak(options.planted_leak.resolve(strict=True))
    samples, told, rate = run(options.seconds, options.attacks.split(","))
    later = [s for s in samples if s.seconds >= options.warm_up]
    memory = judge.growth_per_hour(later, "rss") / judge.MIB
    figures = [
        {"name": "ops/soak/rss_growth_mib_per_hour", "value": round(memory, 3), "unit": "MiB/h", "goal": "<= 1", "aim": "<= 0.2"},
        {"name": "ops/soak/goodput", "value": round(told["rps"] / rate, 3), "unit": "ratio", "goal": "", "aim": ""},
        {"name": "ops/soak/peak_rss_mib", "value": round(max(s.rss for s in samples) / judge.MIB, 1), "unit": "MiB", "goal": "", "aim": ""},
    ]
    rpc_bench.write_figures(options.out, figures)
    found = judge.faults(samples, options.warm_up, options.max_growth * judge.MIB)
    lines = [f"{figure['name']} {figure['value']} {figure['unit']}" for figure in figures]
    print("\n".join([*lines, *found, "soak: " + ("FAILED" if found else "nothing grows")]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
