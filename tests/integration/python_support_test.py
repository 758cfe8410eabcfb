"""Tests of what the Python tests judge by: the oracle against PyTorch's results, the comparisons against wrong ones."""

import dataclasses
import unittest

import golden_cases
import numpy as np

from attend_testing import oracle
from attend_testing.tensors import assert_near, assert_same_bits, from_tensor, to_tensor


class OracleTest(unittest.TestCase):
    def test_the_oracle_agrees_with_pytorch_in_float64(self):
        for case in golden_cases.all_cases():
            with self.subTest(case.name):
                result = case.attended()
                assert_near(result.weights, case.weights, 1e-12, "weights")
                output = oracle.merge_heads(result.output)
                if "output" in case.projections:
                    output = oracle.project(output, *case.projections["output"])
                assert_near(output, case.output, 1e-12, "output")

    def test_weights_are_the_scores_less_log_sum_exp(self):
        rng = np.random.default_rng(1)
        query, key, value = rng.standard_normal((3, 1, 2, 5, 4))
        options = oracle.Options(causal="bottom_right", sinks=np.array([0.5, -1.0]))
        result = oracle.attend(query, key, value, options)
        assert_near(np.exp(result.scores - result.log_sum_exp[..., None]), result.weights, 1e-14, "weights")

    def test_positions_and_windows_as_the_proto_says(self):
        """T = S = 5, sliding_window_left = 2: query 4 sees keys 2, 3 and 4."""
        query = key = value = np.ones((1, 1, 5, 1))
        seen = oracle.attend(query, key, value, oracle.Options(left=2, causal="bottom_right")).weights[0, 0] > 0
        self.assertEqual(list(np.flatnonzero(seen[4])), [2, 3, 4])
        self.assertEqual(list(np.flatnonzero(seen[0])), [0])

    def test_a_row_without_keys_is_zero_and_its_denominator_the_sink(self):
        options = oracle.Options(valid_lengths=[0], sinks=np.array([1.5]))
        result = oracle.attend(np.ones((1, 1, 2, 3)), np.ones((1, 1, 4, 3)), np.full((1, 1, 4, 3), np.nan), options)
        self.assertFalse(result.output.any() or result.weights.any())
        self.assertTrue((result.log_sum_exp == 1.5).all())
        options = oracle.Options(valid_lengths=[0])
        result = oracle.attend(np.ones((1, 1, 2, 3)), np.ones((1, 1, 4, 3)), np.ones((1, 1, 4, 3)), options)
        self.assertTrue(np.isneginf(result.log_sum_exp).all())


class ComparisonTest(unittest.TestCase):
    def test_near_rejects_what_is_not(self):
        expected = np.array([0.0, 1.0, -np.inf, np.nan])
        assert_near(expected + [1e-7, -1e-7, 0, 0], expected, 1e-6, "close")
        for wrong in ([1e-5, 1, -np.inf, np.nan], [0, 1, np.inf, np.nan], [0, 1, -np.inf, 0], [0, np.nan, -np.inf, np.nan]):
            with self.subTest(wrong), self.assertRaises(AssertionError):
                assert_near(np.array(wrong), expected, 1e-6, "wrong")
        with self.assertRaisesRegex(AssertionError, "shape"):
            assert_near(np.zeros(3), np.zeros((3, 1)), 1, "shape")

    def test_near_names_the_worst_element(self):
        with self.assertRaisesRegex(AssertionError, r"2 of 4 .* the worst, \(1, 0\), is 3.0, expected 0.0"):
            assert_near(np.array([[0, 1], [3, 0]]), np.zeros((2, 2)), 0.5, "worst")

    def test_bits_are_bits(self):
        a = np.array([0, np.nan], np.float32)
        assert_same_bits(a, a.copy(), "same")
        with self.assertRaisesRegex(AssertionError, "1 of 2"):
            assert_same_bits(a, np.array([-0.0, np.nan], np.float32), "negative zero")

    def test_tensors_survive_both_forms(self):
        array = np.array([[1.5, -0.0, 3e-45], [np.inf, 1e38, -7]], np.float32)
        for form in ("data", "values"):
            assert_same_bits(from_tensor(to_tensor(array, form)), array, form)

    def test_an_output_tolerance_is_not_a_blank_cheque(self):
        """Swapping two heads' outputs must be far outside of it."""
        for case in golden_cases.all_cases():
            swapped = dataclasses.replace(case, output=np.roll(case.output, 1, axis=-1))
            with self.subTest(case.name), self.assertRaises(AssertionError):
                assert_near(swapped.output, case.output, case.output_tolerance(), "swapped")


if __name__ == "__main__":
    unittest.main()
