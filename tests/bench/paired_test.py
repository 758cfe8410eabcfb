#!/usr/bin/env python3
"""Tests of what bench-compare says about its pairs, by values that were computed elsewhere."""

import math
import pathlib
import random
import re
import sys
import typing
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import compare
import paired


class StudentTest(unittest.TestCase):
    def test_quantiles_are_those_of_the_printed_tables(self):
        table = {(0.95, 1): 12.7062, (0.95, 2): 4.3027, (0.95, 8): 2.3060, (0.95, 9): 2.2622, (0.95, 30): 2.0423,
                 (0.99, 9): 3.2498, (0.90, 5): 2.0150}
        for (confidence, degrees), expected in table.items():
            with self.subTest(confidence=confidence, degrees=degrees):
                self.assertAlmostEqual(paired.student_quantile(confidence, degrees), expected, delta=6e-5)

    def test_one_and_two_degrees_of_freedom_have_closed_forms(self):
        for x in (0.1, 1.0, 4.0, 100.0):
            self.assertAlmostEqual(paired.student_probability(x, 1), 2 / math.pi * math.atan(x), delta=1e-8)
            self.assertAlmostEqual(paired.student_probability(x, 2), x / math.sqrt(2 + x * x), delta=1e-8)


class RatioTest(unittest.TestCase):
    def test_three_pairs_worked_by_hand(self):
        # Log-ratios log 2 * (0, 1, 2): mean log 2, standard error log 2 / sqrt 3, quantile 4.30265 of two degrees.
        ratio, lower, upper = paired.ratio_interval([1, 2, 4], [1, 1, 1])
        self.assertAlmostEqual(ratio, 2, places=12)
        self.assertAlmostEqual(lower, 2 ** (1 - 4.30265273 / math.sqrt(3)), places=6)
        self.assertAlmostEqual(upper, 2 ** (1 + 4.30265273 / math.sqrt(3)), places=6)

    def test_above_one_is_faster_and_swapping_the_sides_inverts(self):
        base, new = [10.0, 11.0, 10.5, 10.2], [5.0, 5.4, 5.1, 5.2]
        ratio, lower, upper = paired.ratio_interval(base, new)
        self.assertGreater(lower, 1)
        inverse = paired.ratio_interval(new, base)
        for ours, theirs in zip((ratio, lower, upper), (inverse[0], inverse[2], inverse[1]), strict=True):
            self.assertAlmostEqual(ours, 1 / theirs, places=12)

    def test_what_slows_both_of_a_pair_does_not_widen_the_interval(self):
        ratio, lower, upper = paired.ratio_interval([3, 30, 0.3], [2, 20, 0.2])
        for value in (ratio, lower, upper):
            self.assertAlmostEqual(value, 1.5, places=9)

    def test_the_interval_covers_the_truth_as_often_as_it_says(self):
        source, covered, tries = random.Random(1), 0, 1000
        for _ in range(tries):
            base = [math.exp(source.gauss(0, 0.05)) for _ in range(9)]
            new = [math.exp(source.gauss(0, 0.05)) for _ in range(9)]
            _, lower, upper = paired.ratio_interval(base, new)
            covered += lower <= 1 <= upper
        self.assertAlmostEqual(covered / tries, 0.95, delta=0.025)  # 3.6 standard errors.

    def test_one_pair_says_nothing(self):
        with self.assertRaises(ValueError):
            paired.ratio_interval([1.0], [1.0])


class JudgementTest(unittest.TestCase):
    ROWS: typing.ClassVar = {"core/a/peak_fraction": {"base": [0.50, 0.51, 0.50], "new": [0.25, 0.255, 0.25]},
            "core/b/attend_us": {"base": [8.0, 8.1, 8.0], "new": [4.0, 4.05, 4.0]},
            "core/c/peak_fraction": {"base": [], "new": [0.5, 0.5, 0.5]},
            "core/d/peak_fraction": {"base": [0.5, 0.5, 0.5], "new": []}}

    def test_direction_follows_from_the_unit_in_the_name(self):
        found = {row["name"]: row for row in compare.judge(self.ROWS)}
        self.assertAlmostEqual(found["core/a/peak_fraction"]["ratio"], 0.5, places=12)
        self.assertAlmostEqual(found["core/b/attend_us"]["ratio"], 2, places=12)

    def test_overload_is_better_with_more_answers_and_shorter_waits(self):
        rows = {row: {"base": [50.0, 51.0, 50.0], "new": [100.0, 102.0, 100.0]} for row in compare.OverloadLoad().rows}
        faster = {row["name"]: row["ratio"] > 1 for row in compare.judge(rows)}
        self.assertEqual(faster, {"overload/peak/rps": True, "overload/2x/goodput": True, "overload/10x/goodput": True,
                                  "overload/10x/accepted_p99_ms": False})
        self.assertFalse(any(re.search(compare.SPEED, row) for row in rows), "no part of a plain run")

    def test_what_the_base_lacks_is_new_and_what_this_tree_lacks_is_gone(self):
        found = {row["name"]: row["verdict"] for row in compare.judge(self.ROWS)}
        self.assertEqual(found["core/c/peak_fraction"], "new")
        self.assertEqual(found["core/d/peak_fraction"], "gone")

    def test_a_limit_fails_slower_and_gone_rows_and_no_other(self):
        failed = compare.below(compare.judge(self.ROWS), 0.98)
        self.assertEqual([row["name"] for row in failed], ["core/a/peak_fraction", "core/d/peak_fraction"])

    def test_the_sides_take_turns_as_abba(self):
        order = [side for round_ in range(4) for side in compare.order(round_)]
        self.assertEqual(order, ["base", "new", "new", "base"] * 2)


if __name__ == "__main__":
    unittest.main()
