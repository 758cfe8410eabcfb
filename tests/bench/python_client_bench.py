"""What the Python package costs beside bare grpcio: time of a small call and of a large one, and memory of a large one.

    PYTHONPATH=build/release/python-site:tests/support:build/release/generated/python ATTEND_BUILD_DIR=build/release \
      python3 tests/bench/python_client_bench.py [--rounds 100] [--check]

Both sides call the same server in turns, the second first in every other round, so that what else the machine does hits both. A
round gives one ratio; printed are the median of the ratios and its 95 % interval. On a machine that has much else to do, `chrt -f 10`
(root) before the command keeps the rest away for those seconds. With --check, fails where the median is above its
bound:

    small     Attend over 5 x 64, against generated stubs on a plain channel; a round has 30
              calls of each side and compares their medians                                      <= 1.3
    large     sdpa over 64 MiB, against the same bytes, serialized beforehand, through an
              identity serializer, with the answer left as bytes; a round has a call of each     <= 1.15
    memory    peak resident memory of a process in the large call beyond its own arrays,
              against the bytes of the request                                                   <= 2.2
"""

import argparse
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time

import attend
import grpc
import numpy as np
from attend import _wire

from attend_testing.server import Server
from attend_testing.stubs import pb, pb_grpc, tensor_pb2

BOUNDS = {"small": 1.3, "large": 1.15, "memory": 2.2}
SDPA = "/attend.v1.AttentionService/ScaledDotProductAttention"
# One key for each query: the time is that of moving bytes, not of computing.
WINDOW = {"sliding_window_left": 0, "sliding_window_right": 0}


def large_inputs():
    """Query, key and value of 64 MiB together."""
    return np.random.default_rng(0).standard_normal((3, 8, (64 << 20) // (3 * 8 * 64 * 4), 64), np.float32)


def interval(values):
    """A 95 % interval of the median, by the order of the values alone."""
    ordered, n = sorted(values), len(values)
    below = math.floor(n / 2 - 0.98 * math.sqrt(n))
    return (ordered[max(below, 0)], ordered[min(n - 1 - below, n - 1)])


def compare(name, server, ours, bare, calls, rounds):
    """The median over rounds of the ratio of both sides' times."""
    for call in (ours, bare) * 3:
        call()
    times = {ours: [], bare: []}
    for turn in range(rounds):
        for side in (ours, bare) if turn % 2 else (bare, ours):
            times[side].append(time_of(side, server, calls))
    (passed, used), (passed_bare, used_bare) = (np.array(times[side]).T for side in (ours, bare))
    ratios = passed / passed_bare
    ratio, (low, high) = statistics.median(ratios), interval(ratios)
    print(
        f"{name:8} {np.median(passed) * 1e6:8.0f} us, bare {np.median(passed_bare) * 1e6:8.0f} us: {ratio:.3f} x [{low:.3f}, {high:.3f}] "
        f"(at most {BOUNDS[name]}); processor time {used.sum() / used_bare.sum():.3f} x"
    )
    return ratio


def time_of(call, server, calls):
    """The median time of a call, and the processor time of client and server in all of them, which other work lengthens less."""

    def used():
        return time.process_time() + server.cpu_seconds()

    start, passed = used(), []
    for _ in range(calls):
        begin = time.perf_counter()
        call()
        passed.append(time.perf_counter() - begin)
    return statistics.median(passed), used() - start


def small(server, rounds):
    x = np.random.default_rng(0).standard_normal((5, 64), dtype=np.float32)
    client = attend.Client(server.address)
    stub = pb_grpc.AttentionServiceStub(grpc.insecure_channel(server.address))

    def bare():
        request = pb.AttendRequest(embeddings=tensor_pb2.Tensor(data_type=1, shape=x.shape, data=x.tobytes()))
        output = stub.Attend(request, timeout=60).output
        return np.frombuffer(output.data, np.float32).reshape(output.shape)

    return compare("small", server, lambda: client.attend(x).output, bare, 30, rounds)


def large(server, rounds):
    query, key, value = large_inputs()
    client = attend.Client(server.address)
    pieces, _ = attend.requests.sdpa(query, key, value, **WINDOW).message.pieces()
    content = _wire.join(pieces)
    options = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
    method = grpc.insecure_channel(server.address, options).unary_unary(SDPA)
    return compare(
        "large", server, lambda: client.sdpa(query, key, value, **WINDOW), lambda: method(content, timeout=60), 1, rounds
    )


def status_bytes(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def memory_of_one_call(address):
    """In a process of its own: prints the ratio."""
    inputs = large_inputs()
    client = attend.Client(address)
    client.info()
    before = status_bytes("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    client.sdpa(*inputs, **WINDOW)
    print((status_bytes("VmHWM") - before) / inputs.nbytes)


def memory(server):
    command = [sys.executable, __file__, "--memory-of-one-call", server.address]
    ratio = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"memory   {ratio:.2f} x the request (at most {BOUNDS['memory']})")
    return ratio


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--memory-of-one-call", metavar="ADDRESS", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of_one_call:
        memory_of_one_call(arguments.memory_of_one_call)
        return 0
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} before the first call")
    with Server() as server:
        figures = {"small": small(server, arguments.rounds), "large": large(server, arguments.rounds), "memory": memory(server)}
    too_much = [name for name, figure in figures.items() if figure > BOUNDS[name]]
    if arguments.check and too_much:
        print(f"above their bounds: {', '.join(too_much)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
