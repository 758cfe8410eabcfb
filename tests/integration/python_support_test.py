"""Tests of what the Python tests judge by: the oracle against PyTorch's results, the comparisons against wrong ones."""

import dataclasses
import unittest

import numpy as np

import golden_cases
from attend_testing import layer_oracle, oracle
from attend_testing.element_types import BF16, F16, F32, F64, decode, encode, name_of, rounded, rounding
from attend_testing.layer_oracle import LLAMA31, Norm, Rotary
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


    def test_sequences_of_a_ragged_batch_do_not_see_each_other(self):
        """By hand: with equal scores the output is the mean of the values that are seen."""
        options = oracle.Options(scale=0.0, cumulative_query_lengths=[0, 2, 2, 4], cumulative_key_lengths=[0, 2, 3, 3])
        key = np.ones((1, 1, 3, 1))
        value = np.array([1.0, 3.0, 50.0]).reshape(1, 1, 3, 1)
        result = oracle.attend(np.ones((1, 1, 4, 1)), key, value, options)
        np.testing.assert_array_equal(result.output.ravel(), [2, 2, 0, 0])
        np.testing.assert_array_equal(result.weights[0, 0], [[0.5, 0.5], [0.5, 0.5], [0, 0], [0, 0]])
        np.testing.assert_array_equal(np.isneginf(result.scores[0, 0]).all(axis=-1), [False, False, True, True])
        np.testing.assert_array_equal(result.log_sum_exp.ravel(), [np.log(2), np.log(2), -np.inf, -np.inf])

    def test_masks_and_positions_of_a_ragged_batch_count_from_each_sequence(self):
        mask = np.array([[True, True], [True, False], [False, True]])
        options = oracle.Options(scale=0.0, causal="bottom_right", mask=mask, cumulative_query_lengths=[0, 1, 3])
        weights = oracle.attend(*(np.ones((1, 1, 3, 1)),) * 3, options).weights[0, 0]
        np.testing.assert_array_equal(weights, [[1, 0], [1, 0], [0, 1]])

    def test_top_weights(self):
        weights, keys = oracle.top(np.array([[0.25, 0.5, 0.25, 0.0], [0.0, 0.0, 1.0, 0.0]]), 3)
        np.testing.assert_array_equal(weights, [[0.5, 0.25, 0.25], [1, 0, 0]])
        np.testing.assert_array_equal(keys, [[1, 0, 2], [2, -1, -1]])
        weights, keys = oracle.top(np.array([[1.0]]), 2)
        np.testing.assert_array_equal((weights, keys), [[[1, 0]], [[0, -1]]])


class LayerOracleTest(unittest.TestCase):
    """Rotary embeddings and norms of the oracle against what their papers say of them."""

    def test_a_turn_keeps_lengths_and_depends_on_distances_alone(self):
        rng = np.random.default_rng(0)
        for rotary in (Rotary(), Rotary("interleaved"), Rotary(dim=4), Rotary(llama3=LLAMA31)):
            query, key = rng.standard_normal((2, 6, 8))
            positions = np.arange(6)
            turned = layer_oracle.turn(query, positions, rotary), layer_oracle.turn(key, positions, rotary)
            np.testing.assert_allclose((turned[0] ** 2).sum(axis=-1), (query**2).sum(axis=-1), rtol=1e-12)
            moved = layer_oracle.turn(query, positions + 5, rotary) @ layer_oracle.turn(key, positions + 5, rotary).T
            np.testing.assert_allclose(moved, turned[0] @ turned[1].T, atol=1e-12)

    def test_forms_are_the_same_turn_of_other_elements(self):
        x = np.random.default_rng(1).standard_normal((6, 8))
        interleaved = layer_oracle.turn(x, np.arange(6), Rotary("interleaved"))
        half = layer_oracle.turn(np.concatenate([x[:, 0::2], x[:, 1::2]], axis=1), np.arange(6), Rotary())
        np.testing.assert_allclose(np.concatenate([interleaved[:, 0::2], interleaved[:, 1::2]], axis=1), half, atol=1e-12)
        # By complex numbers: pair (x, y) is x + iy, turned by multiplication.
        turned = (x[:, 0::2] + 1j * x[:, 1::2]) * np.exp(1j * np.arange(6)[:, None] * 10000.0 ** (-np.arange(4) / 4))
        np.testing.assert_allclose(interleaved[:, 0::2] + 1j * interleaved[:, 1::2], turned, atol=1e-12)

    def test_llama3_scaling_has_all_three_ranges_and_no_steps(self):
        plain, scaled = (layer_oracle.frequencies(Rotary(base=500000.0, llama3=scaling), 32) for scaling in (None, LLAMA31))
        ratio = plain / scaled
        self.assertEqual((ratio[0], ratio[-1]), (1, 8))
        self.assertTrue(((ratio > 1) & (ratio < 8)).any(), "LLAMA31 must reach the mixed range, else it is not tested")
        self.assertTrue((np.diff(ratio) >= -1e-12).all())

    def test_norms(self):
        x = np.random.default_rng(2).standard_normal((1, 2, 3, 8)) + 1
        ones = np.ones(8, np.float32)
        rms, layer = (layer_oracle.normalise(x, Norm(ones, kind=kind, epsilon=0.0)) for kind in ("rms", "layer"))
        np.testing.assert_allclose((rms**2).mean(axis=-1), 1)
        np.testing.assert_allclose((layer.mean(axis=-1), layer.var(axis=-1)), (np.zeros((1, 2, 3)), np.ones((1, 2, 3))), atol=1e-12)
        np.testing.assert_allclose(layer_oracle.normalise(x, Norm(0 * ones, adds_one=True, epsilon=0.0)), rms)
        all_heads = layer_oracle.normalise(x, Norm(np.ones(16, np.float32), epsilon=0.0))
        np.testing.assert_allclose((oracle.merge_heads(all_heads) ** 2).mean(axis=-1), 1)


class ElementTypesTest(unittest.TestCase):
    def test_known_encodings(self):
        for number, data_type, data in (
            (1.0, F16, "003c"), (-2.0, F16, "00c0"), (65504.0, F16, "ff7b"), (65520.0, F16, "007c"), (2.0**-24, F16, "0100"),
            (2.0**-25, F16, "0000"), (1.0, BF16, "803f"), (-np.inf, BF16, "80ff"), (3.4e38, BF16, "807f"),
            (1 + 2.0**-8, BF16, "803f"), (1 + 3 * 2.0**-8, BF16, "823f"), (1 + 2.0**-8 + 2.0**-20, BF16, "813f"),
            (0.1, F64, "9a9999999999b93f"), (0.1, F32, "cdcccc3d"),
        ):  # fmt: skip
            with self.subTest(number, type=name_of(data_type)):
                self.assertEqual(encode(np.array([number]), data_type).hex(), data)

    def test_every_number_of_16_bits_survives(self):
        data = np.arange(1 << 16, dtype="<u2").tobytes()
        for data_type in (F16, BF16):
            numbers = decode(data, data_type)
            kept = ~np.isnan(numbers)
            again = np.frombuffer(encode(numbers, data_type), "<u2")
            np.testing.assert_array_equal(again[kept], np.arange(1 << 16)[kept])
            self.assertTrue(np.isnan(decode(again.tobytes(), data_type)[~kept]).all())

    def test_rounding_bounds_the_rounding_closely(self):
        numbers = np.random.default_rng(1).standard_normal(10000).astype(np.float32)
        for data_type in (F16, BF16):
            error = np.abs(rounded(numbers, data_type).astype(np.float64) - numbers) / rounding(numbers, data_type)
            self.assertLessEqual(error.max(), 1)
            self.assertGreater(error.max(), 0.9)


class ComparisonTest(unittest.TestCase):
    def test_near_rejects_what_is_not(self):
        expected = np.array([0.0, 1.0, -np.inf, np.nan])
        assert_near(expected + np.array([1e-07, -1e-07, 0, 0]), expected, 1e-6, "close")
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
