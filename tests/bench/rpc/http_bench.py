"""Calls at the HTTP door beside gRPC's and beside JSON through Envoy, in turns at one server; part of rpc_bench.py.

    tests/bench/rpc/rpc_bench.py --bin build/release/bin --http [--results tests/bench/RESULTS.md]

Figures begin with http/attend/T5/D64/cN, N calls in flight: /grpc, then the door in protobuf (no word), in JSON (/json), and
JSON through Envoy's grpc_json_transcoder (/envoy_json). The server has one core, the generators another. Envoy shares the
server's: what a transcoder costs is paid where the server would run. Ratios are medians of the rounds' ratios.
"""

import contextlib
import json
import statistics
import subprocess
import tempfile

import envoy_transcoder
import rpc_bench

METHOD = "/attend.v1.AttentionService/Attend"
TOKENS, DIM = 5, 64
CALLS_IN_FLIGHT = (1, 32)
# What the figures of each way in are called, after http/attend/T5/D64/cN.
FORMS = {"proto": "", "json": "/json", "envoy": "/envoy_json"}


def http_load(bench, target, request_file, content_type, concurrency):
    command = ["taskset", "-c", rpc_bench.CLIENT_CORE, bench.bin / "attend-http-load", "--target", target,
               "--method", METHOD, "--request", request_file,
               "--type", content_type, "--concurrency", concurrency, "--seconds", bench.options.seconds]  # fmt: skip
    run = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    result = json.loads(run.stdout)
    if result["failed"]:
        raise RuntimeError(f"calls failed: {result}")
    return result


def json_request():
    values = [round(0.031 * (i * 37 % 61), 3) for i in range(TOKENS * DIM)]
    return json.dumps({"embeddings": {"shape": [TOKENS, DIM], "values": values}}).encode()


def one_round(bench, server, envoy, files, calls):
    """{way in: result} of one turn each."""
    grpc = bench.load(server, METHOD, files["proto"], calls, bench.options.seconds)
    results = {"grpc": {"rps": grpc["rps"], "p50": grpc["codes"]["0"]["p50"]}}
    results["proto"] = http_load(bench, server.http_target, files["proto"], "application/proto", calls)
    results["json"] = http_load(bench, server.http_target, files["json"], "application/json", calls)
    if envoy:
        results["envoy"] = http_load(bench, envoy.target, files["json"], "application/json", calls)
    return results


def http_calls(bench):
    """The calls of small_calls at the HTTP door, in protobuf and in JSON, beside gRPC's and Envoy's JSON at the same server."""
    rounds = {calls: [] for calls in CALLS_IN_FLIGHT}
    with contextlib.ExitStack() as stack:
        server = bench.attend_server("--http-listen", "127.0.0.1:0")
        stack.callback(server.stop)
        path = envoy_transcoder.find_envoy()
        envoy = path and stack.enter_context(
            envoy_transcoder.Transcoder(path, int(server.target.rsplit(":", 1)[1]), rpc_bench.SERVER_CORE))
        files = {}
        for form, body in (("proto", rpc_bench.attend_request(TOKENS, DIM)), ("json", json_request())):
            file = stack.enter_context(tempfile.NamedTemporaryFile())
            file.write(body)
            file.flush()
            files[form] = file.name
        for _ in range(bench.options.rounds):
            for calls in CALLS_IN_FLIGHT:
                rounds[calls].append(one_round(bench, server, envoy, files, calls))
    for calls, of in rounds.items():
        report(bench, f"http/attend/T{TOKENS}/D{DIM}/c{calls}", of, calls)


def report(bench, name, rounds, calls):
    """Medians, and medians of the rounds' ratios."""

    def median(what):
        return statistics.median(map(what, rounds))

    bench.report(f"{name}/grpc/rps", median(lambda r: r["grpc"]["rps"]), "calls/s", "-")
    bench.report(f"{name}/grpc/p50", median(lambda r: r["grpc"]["p50"]), "ms", "-")
    for form, suffix in FORMS.items():
        if form not in rounds[0]:
            continue
        for key, unit in (("rps", "calls/s"), ("p50", "ms")):
            goal = "<= 1.3" if (calls, form, key) == (1, "proto", "p50") else "-"
            bench.report(f"{name}{suffix}/{key}", median(lambda r, f=form, k=key: r[f][k]), unit, "-")
            bench.report(f"{name}{suffix}/{key}_over_grpc", median(lambda r, f=form, k=key: r[f][k] / r["grpc"][k]), "ratio", goal)
    if "envoy" in rounds[0]:
        for key in ("rps", "p50"):
            bench.report(f"{name}/json/{key}_over_envoy", median(lambda r, k=key: r["json"][k] / r["envoy"][k]), "ratio", "-")
