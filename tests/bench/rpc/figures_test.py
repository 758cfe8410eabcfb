#!/usr/bin/env python3
"""Tests of what the benchmarks make of what they measured: runs that are not what they should be do not pass for such."""

import argparse
import contextlib
import http.server
import io
import pathlib
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import scrape_bench
import scraper
import tenants_bench

PAGE = """# TYPE grpc_server_started_total counter
grpc_server_started_total{grpc_type="unary",grpc_service="attend.v1.AttentionService",grpc_method="Attend"} 1234567
grpc_server_started_total{grpc_type="bidi_stream",grpc_service="attend.v1.AttentionService",grpc_method="StreamAttend"} 5
grpc_server_handled_total{grpc_type="unary",grpc_service="attend.v1.AttentionService",grpc_method="Attend",grpc_code="OK"} 7
"""


class Door(http.server.ThreadingHTTPServer):
    """Answers everything with one page; `peers` are the connections that asked."""

    daemon_threads = True

    def __init__(self, page=PAGE, status=200):
        super().__init__(("127.0.0.1", 0), Answer)
        self.page, self.status, self.peers = page.encode(), status, []
        self.target = f"127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.peers.append(self.client_address)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.page)))
        self.end_headers()
        self.wfile.write(self.server.page)

    def log_message(self, *_):
        pass


class ScraperTest(unittest.TestCase):
    def test_the_calls_of_one_method_are_counted_and_no_other(self):
        with Door() as door:
            page = scraper.scrape(door.target)
        self.assertEqual(scraper.calls_arrived(page, "Attend"), 1234567)
        self.assertEqual(scraper.calls_arrived(page, "StreamAttend"), 5)
        with self.assertRaisesRegex(RuntimeError, "0 series"):
            scraper.calls_arrived(page, "Tend")

    def test_it_scrapes_for_as_long_as_it_is_entered_over_one_connection(self):
        with Door() as door:
            with scraper.Scraper(door.target, period=0.02) as running:
                end = time.monotonic() + 60
                while len(door.peers) < 3 and time.monotonic() < end:
                    time.sleep(0.005)
            seen = len(door.peers)
            time.sleep(0.1)
            self.assertEqual((len(door.peers), running.scrapes), (seen, seen))
        self.assertGreaterEqual(seen, 3)
        self.assertEqual(len(set(door.peers)), 1)

    def test_a_door_without_metrics_is_no_scrape(self):
        for door in (Door(status=503), Door(page="ok\n")):
            with self.subTest(status=door.status), door, self.assertRaisesRegex(RuntimeError, "scrape 1 failed"):
                self.scrape_once(door)

    @staticmethod
    def scrape_once(door):
        with scraper.Scraper(door.target, period=0.01):
            end = time.monotonic() + 60
            while not door.peers and time.monotonic() < end:
                time.sleep(0.005)
            time.sleep(0.05)


def report_scrapes(pairs):
    """(whether they pass, figures by name, what was printed) of pairs of (rps, cpu_us)."""
    bench = scrape_bench.ScrapeBench(argparse.Namespace(bin="nowhere"))
    results = [[{"rps": rps, "cpu_us": cpu_us} for rps, cpu_us in pair] for pair in pairs]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        passes = bench.report_pairs(results)
    return passes, {figure["name"]: figure for figure in bench.figures}, said.getvalue()


class ScrapeTest(unittest.TestCase):
    def test_ratios_are_scraped_over_unscraped(self):
        passes, figures, said = report_scrapes([((50000, 19), (49750, 19.19)), ((40000, 24), (39800, 24.24))])
        self.assertTrue(passes)
        self.assertEqual(figures["ops/scrape/rps_over_unscraped"]["value"], 0.995)
        self.assertEqual(figures["ops/scrape/rps_over_unscraped"]["note"], "95 % interval 0.9950 to 0.9950, 2 pairs")
        self.assertEqual(figures["ops/scrape/server_cpu_over_unscraped"]["value"], 1.01)
        self.assertIn("scrape: met\n", said)

    def test_a_ratio_below_the_goal_fails(self):
        passes, figures, said = report_scrapes([((50000, 19), (49000, 19)), ((40000, 24), (39200, 24))])
        self.assertFalse(passes)
        self.assertEqual(figures["ops/scrape/rps_over_unscraped"]["value"], 0.98)
        self.assertIn("scrape: MISSED\n", said)

    def test_a_server_with_time_to_spare_is_no_full_load(self):
        passes, figures, said = report_scrapes([((40000, 19), (40000, 19)), ((40000, 19), (40000, 19))])
        self.assertFalse(passes)
        self.assertIn("NOT valid: the server used 0.76 of its core", figures["ops/scrape/rps_over_unscraped"]["note"])
        self.assertIn("NOT valid", said)

    def test_an_interval_around_the_goal_says_that_it_does_not_decide(self):
        self.assertIn("would tell", scrape_bench.verdict(0.992, 0.985, 0.999))
        self.assertIn("would tell", scrape_bench.verdict(0.988, 0.981, 0.995))

    def test_the_runs_take_turns_as_abba(self):
        order = [first ^ i for first in map(scrape_bench.is_scraped_first, range(4)) for i in (False, True)]
        self.assertEqual(order, [False, True, True, False] * 2)


class FloodTest(unittest.TestCase):
    def report(self, *achieved):
        """(figures by what they are, names that are not valid) of rounds that differ in what the flood achieved."""
        alone = {"rps": 100.0, "codes": {"0": {"p99": 2.0}}}
        beside = {"rps": 99.0, "codes": {"0": {"p99": 3.0}}}
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            bench = tenants_bench.TenantsBench(argparse.Namespace(bin="nowhere"), folder)
            bench.report_flood("10x", [(alone, beside, part) for part in achieved])
        return {figure["name"].rsplit("/", 1)[1]: figure for figure in bench.figures}, bench.not_valid

    def test_one_that_sent_what_it_should_is_valid(self):
        figures, not_valid = self.report(0.99, 0.91, 1.0)
        self.assertEqual(not_valid, [])
        self.assertEqual({name: figure["value"] for name, figure in figures.items()},
                         {"goodput_over_alone": 0.99, "p99_over_alone": 1.5, "p99_added": 1.0, "achieved_over_wanted": 0.91})  # fmt: skip
        self.assertFalse(any("note" in figure for figure in figures.values()))

    def test_one_that_fell_short_in_a_single_round_is_not_and_every_figure_says_so(self):
        figures, not_valid = self.report(1.0, 0.89, 1.0)
        self.assertEqual(not_valid, ["tenants/flood/10x"])
        for figure in figures.values():
            self.assertEqual(figure["note"], "NOT valid: the flood sent 0.89 of what it should have")

    def test_the_other_tenants_calls_are_not_the_floods(self):
        with Door() as door:
            arrivals = tenants_bench.Arrivals(door.target)
            door.page = PAGE.replace("1234567", "1235567").encode()
            time.sleep(0.05)
            rate, longest = arrivals.rate_without(400), time.monotonic() - arrivals.start
        self.assertGreaterEqual(rate, 600 / longest)
        self.assertLessEqual(rate, 600 / 0.05)


if __name__ == "__main__":
    unittest.main()
