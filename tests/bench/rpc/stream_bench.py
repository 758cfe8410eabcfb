#!/usr/bin/env python3
"""Measures what a stream of requests spares, against a call for each of the same requests.

small_requests(bench) reports into a rpc_bench.Bench. Alone it prints the figures as JSON:

    tests/bench/rpc/stream_bench.py --bin build/release/bin --rounds 9
"""

import argparse
import json
import statistics
import tempfile

import rpc_bench

SERVICE = "/attend.v1.AttentionService/"
CALLS = 32  # In flight at a time, as in rpc/attend/T5/D64/c32.
REQUESTS = 64  # Of the stream: what the server works on by default.


def small_requests(bench):
    """Streams and calls alternate within every round, against one server on its core, from one generator on its own."""
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(rpc_bench.attend_request(5, 64))
        file.flush()
        server = bench.attend_server()
        try:
            seconds = bench.options.seconds
            pairs = [
                (
                    bench.load(server, SERVICE + "StreamAttend", file.name, REQUESTS, seconds, stream="true"),
                    bench.load(server, SERVICE + "Attend", file.name, CALLS, seconds),
                )
                for _ in range(bench.options.rounds)
            ]
        finally:
            server.stop()
    name = "rpc/stream/T5/D64/"
    bench.report(name + "rps", statistics.median(s["rps"] for s, _ in pairs), "requests/s", "-")
    bench.report(name + "rps_over_unary", statistics.median(s["rps"] / u["rps"] for s, u in pairs), "ratio", ">= 1.5")
    bench.report(name + "p50", statistics.median(s["codes"]["0"]["p50"] for s, _ in pairs), "ms", "-")
    bench.report(name + "server_cpu_per_request", statistics.median(s["cpu_us"] for s, _ in pairs), "us", "-")
    bench.report(name + "server_cpu_over_unary",
                 statistics.median(s["cpu_us"] / u["cpu_us"] for s, u in pairs), "ratio", "-")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="build/release/bin", help="where attend-server and attend-load are")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.5)
    bench = rpc_bench.Bench(parser.parse_args())
    small_requests(bench)
    print(json.dumps(bench.figures))


if __name__ == "__main__":
    main()
