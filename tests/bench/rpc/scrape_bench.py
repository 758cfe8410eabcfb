#!/usr/bin/env python3
"""Measures what it costs to be watched: calls under full load while /metrics is read every second, over calls while it is not.

    make bench-scrape      or        tests/bench/rpc/scrape_bench.py --bin build/release/bin [--rounds 20] [--seconds 4]

One server with one compute thread and an open admin door has a core; the load generator, 32 calls of five tokens in flight, and the
scraper share the other. Runs with and without the scraper make pairs, in turns (without, with, with, without).

  ops/scrape/rps_over_unscraped         calls answered a second
  ops/scrape/server_cpu_over_unscraped  the server's processor time for each call, on which a busy machine has less influence
  ops/scrape/server_core_busy           the part of its core that the server used, median: whether the load was full

The first two are geometric means of the pairs' ratios; their notes have Student's t interval of 95 % (paired.py). Writes the figures
into build/bench/summary.json, as rpc_bench.py does. Fails when the calls miss their goal, and when the load was not full, which makes
the run not valid.
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import paired
import rpc_bench
from scraper import Scraper

METHOD = "/attend.v1.AttentionService/Attend"
CALLS_IN_FLIGHT = 32
GOAL, AIM = 0.99, 0.995
LEAST_BUSY = 0.9


def is_scraped_first(round_):
    return round_ % 2 == 1


def verdict(ratio, lower, upper):
    """What the interval says about the goal."""
    if ratio >= GOAL:
        return "met" if lower >= GOAL else "met, though the interval reaches below the goal: more rounds would tell"
    return "MISSED" if upper < GOAL else "MISSED, though the interval reaches the goal: more rounds would tell"


class ScrapeBench(rpc_bench.Bench):
    def measure(self):
        """Pairs of load results, (unscraped, scraped)."""
        with contextlib.ExitStack() as stack:
            server = self.attend_server("--admin-listen", "127.0.0.1:0")
            stack.callback(server.stop)
            file = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".bin"))
            file.write(rpc_bench.attend_request(5, 64))
            file.flush()
            self.load(server, METHOD, file.name, CALLS_IN_FLIGHT, 1)  # Warms up.
            return [self.pair(server, file.name, is_scraped_first(round_)) for round_ in range(self.options.rounds)]

    def pair(self, server, request_file, scraped_first):
        results = {scraped: self.one_run(server, request_file, scraped) for scraped in (scraped_first, not scraped_first)}
        return results[False], results[True]

    def one_run(self, server, request_file, scraped):
        # Its last port is the admin door's.
        with Scraper(server.http_target) if scraped else contextlib.nullcontext() as scraper:
            result = self.load(server, METHOD, request_file, CALLS_IN_FLIGHT, self.options.seconds)
        if scraped and scraper.scrapes < int(self.options.seconds):
            raise RuntimeError(f"{scraper.scrapes} scrapes in {self.options.seconds} s")
        return result

    def report_pairs(self, pairs):
        """Whether the goal is met by a run that is valid; says so, too."""

        def scraped_over_unscraped(key):
            ratio, lower, upper = paired.ratio_interval([scraped[key] for _, scraped in pairs], [plain[key] for plain, _ in pairs])
            return ratio, lower, upper, f"95 % interval {lower:.4f} to {upper:.4f}, {len(pairs)} pairs"

        busy = statistics.median(result["rps"] * result["cpu_us"] / 1e6 for pair in pairs for result in pair)
        valid = busy >= LEAST_BUSY
        lack = "" if valid else f"NOT valid: the server used {busy:.2f} of its core, the load was not full"
        ratio, lower, upper, note = scraped_over_unscraped("rps")
        self.report("ops/scrape/rps_over_unscraped", ratio, "ratio", f">= {GOAL}", aim=f">= {AIM}", note=lack or note)
        cpu, _, _, note = scraped_over_unscraped("cpu_us")
        self.report("ops/scrape/server_cpu_over_unscraped", cpu, "ratio", "-", note=lack or note)
        self.report("ops/scrape/server_core_busy", busy, "ratio", f">= {LEAST_BUSY}")
        print(f"scrape: {lack or verdict(ratio, lower, upper)}")
        return valid and ratio >= GOAL


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="build/release/bin", help="where the binaries are")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/bench/summary.json"))
    parser.add_argument("--rounds", type=int, default=20, help="pairs of runs, at least 2")
    parser.add_argument("--seconds", type=float, default=4.0, help="counted seconds of each run, at least 1")
    options = parser.parse_args()
    if options.rounds < 2 or options.seconds < 1:
        parser.error("it takes two pairs for an interval, and a second for a scrape")
    return options


def main():
    options = parse()
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("needs two cores: one for the server, one for the load generator and the scraper")
    os.sched_setaffinity(0, {int(rpc_bench.CLIENT_CORE)})  # Of this thread and those that it starts.
    bench = ScrapeBench(options)
    met = bench.report_pairs(bench.measure())
    rpc_bench.write_figures(options.out, bench.figures)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
