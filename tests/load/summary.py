#!/usr/bin/env python3
"""Prints one line per ghz JSON report; fails when a call failed.

    summary.py REPORT.json ...
"""

import json
import pathlib
import sys


def milliseconds(nanoseconds):
    return f"{nanoseconds / 1e6:.2f}"


def main(paths):
    failed = 0
    print(f"{'payload':24}{'calls':>8}{'calls/s':>10}{'mean ms':>9}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}  codes")
    for path in map(pathlib.Path, paths):
        report = json.loads(path.read_text())
        at = {row["percentage"]: row["latency"] for row in report["latencyDistribution"] or []}
        codes = report["statusCodeDistribution"]
        failed += report["count"] - codes.get("OK", 0)
        columns = [milliseconds(report["average"])] + [milliseconds(at.get(p, 0)) for p in (50, 95, 99)]
        print(
            f"{path.name.removesuffix('.report.json'):24}{report['count']:>8}{report['rps']:>10.0f}"
            + "".join(f"{column:>9}" for column in columns)
            + "  "
            + ", ".join(f"{code} {count}" for code, count in codes.items())
        )
    if failed:
        sys.exit(f"{failed} calls failed")


if __name__ == "__main__":
    main(sys.argv[1:])
