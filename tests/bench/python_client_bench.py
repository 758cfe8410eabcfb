"""What the Python package costs beside bare grpcio: time of a small call and of a large one, and memory of a large one.

    PYTHONPATH=build/release/python-site:tests/support:build/release/generated/python ATTEND_BUILD_DIR=build/release \
      python3 tests/bench/python_client_bench.py [--rounds 10] [--check]

Both sides call the same server in turns. With --check, fails where a figure is above its bound:

    small     median of Attend over 5 x 64, against generated stubs on a plain channel           <= 1.3
    large     median of sdpa over 64 MiB, against the same bytes, serialized beforehand, through
              an identity serializer, with the answer left as bytes                              <= 1.15
    memory    peak resident memory of a process in the large call beyond its own arrays,
              against the bytes of the request                                                   <= 2.2
"""

import argparse
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


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(name, ours, bare, calls, rounds):
    """Medians of both, in turns, so that what else the machine does hits both."""
    for call in (ours, bare) * 3:
        call()
    times = ([], [])
    for _ in range(rounds):
        for side, call in zip(times, (ours, bare), strict=True):
            side.extend(seconds(call) for _ in range(calls))
    one, other = (statistics.median(side) for side in times)
    print(f"{name:8} {one * 1e6:10.0f} us, bare {other * 1e6:10.0f} us: {one / other:.3f} x (at most {BOUNDS[name]})")
    return one / other


def small(server, rounds):
    x = np.random.default_rng(0).standard_normal((5, 64), dtype=np.float32)
    client = attend.Client(server.address)
    stub = pb_grpc.AttentionServiceStub(grpc.insecure_channel(server.address))

    def bare():
        request = pb.AttendRequest(embeddings=tensor_pb2.Tensor(data_type=1, shape=x.shape, data=x.tobytes()))
        output = stub.Attend(request, timeout=60).output
        return np.frombuffer(output.data, np.float32).reshape(output.shape)

    return compare("small", lambda: client.attend(x).output, bare, 300, rounds)


def large(server, rounds):
    query, key, value = large_inputs()
    client = attend.Client(server.address)
    pieces, _ = attend.requests.sdpa(query, key, value, **WINDOW).message.pieces()
    content = _wire.join(pieces)
    options = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
    method = grpc.insecure_channel(server.address, options).unary_unary(SDPA)
    return compare(
        "large", lambda: client.sdpa(query, key, value, **WINDOW), lambda: method(content, timeout=60), 1, rounds
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
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--memory-of-one-call", metavar="ADDRESS", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of_one_call:
        memory_of_one_call(arguments.memory_of_one_call)
        return 0
    with Server() as server:
        figures = {"small": small(server, arguments.rounds), "large": large(server, arguments.rounds), "memory": memory(server)}
    too_much = [name for name, figure in figures.items() if figure > BOUNDS[name]]
    if arguments.check and too_much:
        print(f"above their bounds: {', '.join(too_much)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
