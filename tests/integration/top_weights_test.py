"""The largest attention weights of each row, against sorting the whole maps that the server returns."""

import itertools
import unittest

import numpy as np

from attend_testing import oracle
from attend_testing.element_types import BF16, F16, F32, F64, INT32
from attend_testing.oracle import Options
from attend_testing.requests import sdpa_request, to_layer, to_options
from attend_testing.server import ServerTestCase
from attend_testing.stubs import pb
from attend_testing.tensors import OUTPUT, TOP, WEIGHTS, assert_same_bits, from_tensor, tensors_of, to_tensor

# Name: (B, H, K, T, S, options). Rows with fewer keys than are asked for, rows with none, and ties.
CASES = {
    "one key": (1, 1, 1, 3, 1, Options()),
    "several": (2, 4, 2, 7, 70, Options()),
    "many": (1, 6, 2, 49, 1100, Options()),
    "decode": (2, 4, 1, 1, 2100, Options()),
    "causal": (2, 2, 2, 130, 130, Options(causal="bottom_right")),
    "lengths": (3, 2, 2, 5, 40, Options(valid_lengths=[40, 0, 3])),
    "mask": (1, 2, 2, 9, 30, Options(mask=np.random.default_rng(1).random((9, 30)) < 0.1)),
    "sinks": (1, 2, 2, 9, 30, Options(sinks=np.array([8.0, -1.0]))),
    "all equal": (1, 3, 3, 4, 50, Options(scale=0.0)),
    "underflow": (1, 2, 2, 9, 200, Options(scale=64.0)),
}


def top_of(answer):
    return from_tensor(answer.top_attention_weights), from_tensor(answer.top_attention_indices)


class TopWeightsTest(ServerTestCase):
    def assert_top(self, answer, k, what):
        """They are those of the map beside them; the bits too, since nothing is computed with them."""
        weights, indices = top_of(answer)
        expected_weights, expected_indices = oracle.top(from_tensor(answer.attention_weights), k)
        assert_same_bits(weights, expected_weights, f"{what} weights")
        assert_same_bits(indices, expected_indices, f"{what} indices")

    def ask(self, arrays, options, k, outputs, per_head, types=(F32,) * 3, form="data"):
        options.top_k = k
        request = sdpa_request(*arrays, options, outputs, form, per_head, types)
        return self.stub.ScaledDotProductAttention(request, timeout=60)

    def arrays(self, name):
        batch, heads, kv_heads, queries, keys, options = CASES[name]
        rng = np.random.default_rng(list(CASES).index(name))
        shapes = (batch, heads, queries, 8), (batch, kv_heads, keys, 8), (batch, kv_heads, keys, 8)
        return [rng.standard_normal(shape) for shape in shapes], options

    def test_they_are_those_of_the_whole_map(self):
        for name, per_head, k in itertools.product(CASES, (False, True), (1, 5, 64)):
            with self.subTest(name, per_head=per_head, k=k):
                arrays, options = self.arrays(name)
                answer = self.ask(arrays, options, k, [TOP, WEIGHTS, OUTPUT], per_head)
                self.assertEqual(answer.top_attention_indices.data_type, INT32)
                self.assertEqual(answer.top_attention_weights.data_type, F32)
                self.assert_top(answer, k, name)

    def test_alone_they_are_the_same(self):
        """Without the map beside them, rows of weights are thrown away as soon as they have been looked through."""
        for name, per_head in itertools.product(CASES, (False, True)):
            with self.subTest(name, per_head=per_head):
                arrays, options = self.arrays(name)
                alone = self.ask(arrays, options, 5, [TOP], per_head)
                beside = self.ask(arrays, options, 5, [TOP, WEIGHTS, OUTPUT], per_head)
                fields = set(tensors_of(alone))
                self.assertEqual(fields, {"top_attention_weights", "top_attention_indices"})
                for one, other, what in zip(top_of(alone), top_of(beside), ("weights", "indices"), strict=True):
                    assert_same_bits(one, other, what)

    def test_more_than_there_are_keys(self):
        arrays, options = self.arrays("several")
        answer = self.ask(arrays, options, 100, [TOP, WEIGHTS], per_head=True)
        self.assert_top(answer, 100, "100 of 70")
        weights, indices = top_of(answer)
        self.assertTrue((indices[..., 70:] == -1).all() and (weights[..., 70:] == 0).all())

    def test_the_largest_number_that_may_be_asked_for(self):
        one = np.ones((1, 1))
        weights, indices = top_of(self.ask([one, one, one], Options(), 1 << 20, [TOP], per_head=False))
        self.assertEqual(weights.shape, (1, 1 << 20))
        self.assertEqual((weights[0, 0], indices[0, 0]), (1, 0))
        self.assertTrue((indices[0, 1:] == -1).all() and not weights[0, 1:].any())

    def test_types(self):
        for data_type, per_head in itertools.product((BF16, F16, F64), (False, True)):
            with self.subTest(data_type, per_head=per_head):
                arrays, options = self.arrays("causal")
                answer = self.ask(arrays, options, 4, [TOP, WEIGHTS], per_head, (data_type,) * 3)
                arithmetic = F64 if data_type == F64 else F32
                self.assertEqual(answer.top_attention_weights.data_type, arithmetic)
                self.assert_top(answer, 4, "typed")

    def test_axes_are_those_of_the_query(self):
        arrays, options = self.arrays("several")
        for axes, _heads, per_head, shape in (
            (4, 4, True, (2, 4, 7, 5)), (4, 4, False, (2, 7, 5)),
            (3, 4, True, (4, 7, 5)), (3, 4, False, (7, 5)),
            (2, 1, True, (7, 5)), (2, 1, False, (7, 5)),
        ):  # fmt: skip
            with self.subTest(axes=axes, per_head=per_head):
                parts = [array[(0,) * (4 - axes)] for array in arrays]
                answer = self.ask(parts, options, 5, [TOP, WEIGHTS], per_head)
                self.assertEqual(tuple(answer.top_attention_weights.shape), shape)
                self.assertEqual(tuple(answer.top_attention_indices.shape), shape)
                self.assert_top(answer, 5, f"{axes} axes")

    def test_a_row_of_nan_lists_its_first_keys(self):
        query, key = np.ones((2, 4)), np.ones((9, 4))
        query[1] = np.nan
        weights, indices = top_of(self.ask([query, key, key], Options(), 3, [TOP], per_head=True))
        np.testing.assert_array_equal(indices, [[0, 1, 2]] * 2)
        self.assertTrue(np.isnan(weights[1]).all() and np.isfinite(weights[0]).all())

    def test_attend(self):
        rng = np.random.default_rng(3)
        x, context = rng.standard_normal((2, 9, 12)), rng.standard_normal((2, 21, 12))
        layer = {name: (rng.standard_normal((12, 12)), None) for name in ("query", "key", "value")}
        for with_layer, per_head, form in itertools.product((False, True), (False, True), ("data", "values")):
            with self.subTest(layer=with_layer, per_head=per_head, form=form):
                request = pb.AttendRequest(embeddings=to_tensor(x, form), context=to_tensor(context, form))
                request.options.CopyFrom(to_options(Options(top_k=4), per_head=per_head))
                request.outputs.extend([TOP, WEIGHTS])
                if with_layer:
                    request.layer.CopyFrom(to_layer(layer, 3, form=form))
                self.assert_top(self.stub.Attend(request, timeout=60), 4, "attend")


if __name__ == "__main__":
    unittest.main()
