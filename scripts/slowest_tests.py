"""Prints the slowest tests of the last run of each preset, from the reports that ctest wrote.

  python3 scripts/slowest_tests.py [COUNT]        default 10
"""

import os
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    os.chdir(pathlib.Path(__file__).resolve().parents[1])
    reports = sorted(pathlib.Path("build").glob("*/ctest.xml"))
    if not reports:
        print("error: no build/*/ctest.xml; run a test target first", file=sys.stderr)
        return 1
    tests = []
    for report in reports:
        preset = report.parts[1]
        cases = ElementTree.parse(report).getroot().findall("testcase")
        timed = [(float(case.get("time", 0)), preset, case.get("name")) for case in cases]
        print(f"{preset}: {len(cases)} tests, {sum(time for time, _, _ in timed):.0f} s of test time")
        tests += timed
    for time, preset, name in sorted(tests, reverse=True)[:count]:
        print(f"  {time:7.1f} s  {preset:8} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
