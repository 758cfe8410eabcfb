"""FLOAT64 with every option explicit, and float32's edges, against NumPy with more bits than float64 has."""

import unittest

import numpy as np

from attend_testing import oracle, tolerance
from attend_testing.element_types import F32, F64
from attend_testing.oracle import Options
from attend_testing.requests import sdpa_request
from attend_testing.server import ServerTestCase
from attend_testing.tensors import LOG_SUM_EXP, OUTPUT, SCORES, WEIGHTS, assert_near, from_tensor, to_tensor

OUTPUTS = (OUTPUT, WEIGHTS, LOG_SUM_EXP, SCORES)


def random_options(rng, batch, heads, queries, keys):
    """All of them, with all bits of float64."""
    return Options(
        scale=rng.uniform(-0.5, 0.5),
        softcap=rng.uniform(0.5, 30),
        causal=[None, "bottom_right", "top_left"][rng.integers(3)],
        left=int(rng.integers(1, keys + 1)),
        right=int(rng.integers(0, 9)),
        valid_lengths=[int(n) for n in rng.integers(1, keys + 1, batch)],
        mask=rng.random((batch, 1, queries, keys)) < 0.8,
        key_mask=rng.random((batch, keys)) < 0.9,
        bias=rng.standard_normal((1, heads, queries, keys)),
        alibi_slopes=rng.uniform(-0.5, 0.5, heads),
        sinks=rng.standard_normal(heads),
    )


class ExtendedPrecisionTest(ServerTestCase):
    def answer(self, *arrays, options):
        data_type = F64 if arrays[0].dtype == np.float64 else F32
        request = sdpa_request(*arrays, options=options, outputs=OUTPUTS, per_head=True, types=(data_type,) * 3)
        for name in ("bias", "alibi_slopes", "sinks"):
            if (array := getattr(options, name)) is not None:
                getattr(request.options, name).CopyFrom(to_tensor(array, data_type=data_type))
        response = self.stub.ScaledDotProductAttention(request)
        parts = (response.output, response.attention_weights, response.scores, response.log_sum_exp)
        return tuple(from_tensor(x) for x in parts)

    def check_float64(self, rng, batch, kv_heads, group, queries, keys):
        heads, (dim, value_dim) = kv_heads * group, rng.integers(1, 40, 2)
        query = rng.standard_normal((batch, heads, queries, dim))
        key, value = (rng.standard_normal((batch, kv_heads, keys, n)) for n in (dim, value_dim))
        options = random_options(rng, batch, heads, queries, keys)
        expected = oracle.attend(query, key, value, options, precision=np.longdouble)
        output, weights, scores, log_sum_exp = self.answer(query, key, value, options=options)
        self.assertEqual((output.dtype, log_sum_exp.dtype), (np.float64, np.float32))
        name = f"{query.shape} {key.shape}"
        assert_near(output, expected.output, tolerance.DOUBLE * np.abs(value).max(), f"output {name}")
        assert_near(weights, expected.weights, tolerance.DOUBLE, f"weights {name}")
        assert_near(scores, expected.scores, 1e-11, f"scores {name}")
        # Rounded once to float32.
        rounding = np.spacing(np.abs(expected.log_sum_exp).astype(np.float32)).astype(np.float64) / 2
        assert_near(log_sum_exp, expected.log_sum_exp, rounding + 1e-11, f"log-sum-exp {name}")

    def test_long_double_has_more_bits_than_float64(self):
        self.assertLess(np.finfo(np.longdouble).eps, 1e-18)

    def test_float64_with_every_option_explicit(self):
        rng = np.random.default_rng(29)
        for _ in range(40):
            batch, kv_heads, group, queries, keys = rng.integers(1, (3, 3, 4, 40, 90))
            self.check_float64(rng, batch, kv_heads, group, queries, keys)

    def test_float64_beyond_a_tile_and_a_chunk_of_keys(self):
        """FLOAT64 walks 128 keys at a time and FLOAT32 splits them at 1024."""
        rng = np.random.default_rng(31)
        for keys in (127, 128, 129, 255, 257, 300, 1023, 1024, 1025, 1153, 2050):
            for queries in (1, 9):  # Of a tile there are eight.
                self.check_float64(rng, *rng.integers(1, (3, 3, 3)), queries, keys)

    def test_float32_on_the_edge(self):
        rng = np.random.default_rng(30)
        lowest = np.finfo(np.float32).min
        query, key, value = (rng.standard_normal((1, 2, n, 8)).astype(np.float32) for n in (12, 20, 20))
        padding = np.zeros((1, 1, 1, 20), np.float32)
        padding[..., 15:] = lowest
        cases = {
            "padding": Options(bias=padding),
            "all padding": Options(bias=np.full((1, 1, 1, 20), lowest)),
            "largest": Options(bias=-padding),
            "sinks": Options(sinks=np.float32([3e38, lowest])),
            "sinks beside padding": Options(bias=np.full((1, 1, 1, 20), lowest), sinks=np.float32([lowest, -2e38])),
            "slopes": Options(alibi_slopes=np.float32([3e38, lowest])),
            "scale": Options(scale=float(np.finfo(np.float32).max)),
            "softcap": Options(softcap=float(np.finfo(np.float32).max)),
        }
        for name, options in cases.items():
            expected = oracle.attend(query, key, value, options, precision=np.longdouble)
            output, weights, scores, _ = self.answer(query, key, value, options=options)
            assert_near(output, expected.output, tolerance.attention(value), f"output, {name}")
            assert_near(weights, expected.weights, tolerance.WEIGHTS, f"weights, {name}")
            with np.errstate(over="ignore"):
                rounded = expected.scores.astype(np.float32)
            np.testing.assert_allclose(scores, rounded, rtol=5e-7, atol=1e-5, err_msg=name)


if __name__ == "__main__":
    unittest.main()
