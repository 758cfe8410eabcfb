"""Attend with tensors of every type: tokens, context, weights and biases each have their own."""

import itertools
import unittest

import numpy as np

from attend_testing import oracle, tolerance
from attend_testing.element_types import BF16, F16, F32, F64, SINGLE, name_of, rounded, rounding
from attend_testing.oracle import Options
from attend_testing.requests import to_layer, to_options
from attend_testing.server import ServerTestCase
from attend_testing.stubs import pb
from attend_testing.tensors import (
    KEY,
    LOG_SUM_EXP,
    OUTPUT,
    QUERY,
    SCORES,
    VALUE,
    WEIGHTS,
    assert_near,
    assert_same_bits,
    from_tensor,
    tensors_of,
    to_tensor,
)

OUTPUTS = (OUTPUT, WEIGHTS, LOG_SUM_EXP, QUERY, KEY, VALUE, SCORES)

# Name: (B, T, S or None for self-attention, D, D', H, K, E, V, D_out or None). One token and many go other ways.
LAYERS = {
    "one token": (1, 1, None, 24, 24, 2, 2, 12, 12, 24),
    "self": (2, 7, None, 12, 12, 3, 3, 5, 6, 31),
    "no output projection": (2, 7, None, 12, 12, 6, 2, 8, 4, None),
    "cross": (2, 9, 19, 12, 20, 4, 2, 8, 8, 12),
    "wide": (1, 70, None, 130, 130, 2, 2, 65, 65, 130),
}

# Types of tokens, context, weights and biases. Weights in 16 bits under FLOAT32 tokens are what models ship.
MIXTURES = [
    (F32, F32, BF16, BF16),
    (F32, F32, F16, F32),
    (BF16, F32, BF16, F32),
    *((one,) * 4 for one in (F16, BF16, F64)),
    *itertools.permutations((*SINGLE, F32)),
]


class Problem:
    """A layer with its tensors rounded to their types, and what is expected of it."""

    def __init__(self, layer, types):
        self.types = types
        b, t, s, d, d_context, self.heads, self.kv_heads, e, v, self.d_out = LAYERS[layer]
        rng = np.random.default_rng(list(LAYERS).index(layer))
        self.tokens = rounded(rng.standard_normal((b, t, d)), types[0])
        self.context = None if s is None else rounded(rng.standard_normal((b, s, d_context)), types[1])

        def linear(rows, columns):
            weight = rng.standard_normal((rows, columns)) / np.sqrt(columns)
            return rounded(weight, types[2]), rounded(rng.standard_normal(rows), types[3])

        self.layer = {
            "query": linear(self.heads * e, d),
            "key": linear(self.kv_heads * e, d_context),
            "value": linear(self.kv_heads * v, d_context),
        }
        if self.d_out:
            self.layer["output"] = linear(self.d_out, self.heads * v)
        self.options = Options(causal="bottom_right")

    def request(self, form="data"):
        token_type, context_type, weight_type, bias_type = self.types
        request = pb.AttendRequest(
            embeddings=to_tensor(self.tokens, form, token_type),
            layer=to_layer(self.layer, self.heads, self.kv_heads, form, weight_type, bias_type),
            options=to_options(self.options, per_head=True),
            outputs=OUTPUTS,
        )
        if self.context is not None:
            request.context.CopyFrom(to_tensor(self.context, form, context_type))
        return request

    def expected(self):
        """{field: (array, tolerance of the arithmetic)}; see semantics_test.LayerTest for those of FLOAT32."""
        source = self.tokens if self.context is None else self.context
        query = oracle.split_heads(oracle.project(self.tokens, *self.layer["query"]), self.heads)
        key = oracle.split_heads(oracle.project(source, *self.layer["key"]), self.kv_heads)
        value = oracle.split_heads(oracle.project(source, *self.layer["value"]), self.kv_heads)
        result = oracle.attend(query, key, value, self.options, self_attention=self.context is None)
        double = self.types[0] == F64

        def near(array):
            return tolerance.DOUBLE * np.abs(array).max() if double else tolerance.attention(array)

        output, allowed = oracle.merge_heads(result.output), near(value)
        if self.d_out:
            weight, bias = self.layer["output"]
            allowed = tolerance.projection(output, weight, bias, allowed) if not double else (
                oracle.project(np.full(output.shape, allowed), np.abs(weight)) + near(output)
            )
            output = oracle.project(output, weight, bias)
        scores = 2 * tolerance.scores(query, key, self.options)
        scores = scores * 2.0**-29 + near(query) if double else scores + 2 * near(query)
        return {
            "output": (output, allowed),
            "attention_weights": (result.weights, tolerance.DOUBLE if double else tolerance.WEIGHTS),
            "log_sum_exp": (result.log_sum_exp, tolerance.LOG_SUM_EXP),
            "query": (query, near(query)),
            "key": (key, near(key)),
            "value": (value, near(value)),
            "scores": (result.scores, scores),
        }


class LayerTypesTest(ServerTestCase):
    def test_every_output_of_every_mixture_against_float64(self):
        for layer, types in itertools.product(LAYERS, MIXTURES):
            with self.subTest(layer, types=", ".join(map(name_of, types))):
                self.check(Problem(layer, types))

    def check(self, problem):
        answer = self.stub.Attend(problem.request(), timeout=60)
        arithmetic = F64 if problem.types[0] == F64 else F32
        of_maps = {"attention_weights": arithmetic, "scores": arithmetic, "log_sum_exp": F32}
        for name, (array, allowed) in problem.expected().items():
            tensor = getattr(answer, name)
            self.assertEqual(tensor.data_type, of_maps.get(name, problem.types[0]), name)
            exact = name in of_maps or tensor.data_type in (F32, F64)
            bound = allowed if exact else rounding(array, tensor.data_type, allowed)
            assert_near(from_tensor(tensor), array, bound, name)

    def test_values_form_gives_what_data_gives(self):
        """Numbers that the types cannot hold: the server rounds them as element_types does."""
        for types in ((BF16, F32, F16, BF16), (F32, BF16, BF16, F16), (F64,) * 4):
            problem = Problem("cross", (F32,) * 4)
            problem.types = types
            with self.subTest(", ".join(map(name_of, types))):
                data, values = (self.stub.Attend(problem.request(form), timeout=60) for form in ("data", "values"))
                for name, tensor in tensors_of(data).items():
                    expected = from_tensor(tensor).astype(np.float32)
                    assert_same_bits(from_tensor(getattr(values, name)), expected, name)

    def test_without_a_layer(self):
        """Embeddings and context attend as they are, in the type of the embeddings; FLOAT64 in the arithmetic too."""
        rng = np.random.default_rng(9)
        for token_type, context_type in (*itertools.product(SINGLE, repeat=2), (F64, F64)):
            with self.subTest(name_of(token_type), context=name_of(context_type)):
                x = rounded(rng.standard_normal((2, 5, 8)), token_type)
                context = rounded(rng.standard_normal((2, 11, 8)), context_type)
                request = pb.AttendRequest(
                    embeddings=to_tensor(x, data_type=token_type), context=to_tensor(context, data_type=context_type),
                    outputs=[OUTPUT, QUERY, KEY, VALUE],
                )  # fmt: skip
                response = self.stub.Attend(request, timeout=60)
                answer = response.output
                for name, asked in (("query", x), ("key", context), ("value", context)):
                    got = from_tensor(getattr(response, name)).reshape(asked.shape)
                    np.testing.assert_array_equal(got, rounded(asked, token_type), name)
                self.assertEqual(answer.data_type, token_type)
                expected = oracle.attend(x[:, None], context[:, None], context[:, None]).output[:, 0]
                near = tolerance.attention(context) if token_type != F64 else tolerance.DOUBLE * np.abs(context).max()
                assert_near(from_tensor(answer), expected, rounding(expected, token_type, near), "output")


if __name__ == "__main__":
    unittest.main()
