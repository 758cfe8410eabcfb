"""Every type of element, and every mixture that the contract allows, against the float64 oracle."""

import itertools
import unittest

import numpy as np

from attend_testing import oracle, tolerance
from attend_testing.element_types import BF16, F16, F32, F64, INT32, SINGLE, name_of, rounded, rounding
from attend_testing.oracle import Options
from attend_testing.requests import sdpa_request, to_options
from attend_testing.server import ServerTestCase
from attend_testing.stubs import pb
from attend_testing.tensors import (
    KEY,
    LOG_SUM_EXP,
    OUTPUT,
    SCORES,
    TOP,
    WEIGHTS,
    assert_near,
    assert_same_bits,
    from_tensor,
    tensors_of,
    to_tensor,
)

OUTPUTS = (OUTPUT, WEIGHTS, LOG_SUM_EXP, SCORES)
ALL_SINGLE = tuple(itertools.product(SINGLE, repeat=3))


def everything(rng, batch, heads, queries, keys):
    return Options(
        scale=0.25,
        softcap=4.0,
        causal="bottom_right",
        left=30,
        right=3,
        valid_lengths=[keys - 2 * b for b in range(batch)],
        mask=rng.random((batch, 1, queries, keys)) < 0.7,
        bias=rng.standard_normal((1, heads, queries, keys)),
        alibi_slopes=np.linspace(0.5, 0.0625, heads),
        sinks=rng.standard_normal(heads),
    )


# Name: (B, H, K, T, S, E, V, whether with options). The kernels treat one query, some and many differently.
SHAPES = {
    "one of everything": (1, 1, 1, 1, 1, 1, 1, False),
    "decode": (2, 4, 2, 1, 300, 24, 20, False),
    "short": (2, 4, 2, 5, 9, 13, 7, True),
    "prefill": (1, 2, 1, 130, 70, 40, 33, False),
    "everything at once": (2, 4, 2, 37, 70, 24, 20, True),
}


def names(types):
    return ", ".join(name_of(data_type) for data_type in types)


def problem(shape, types, option_type=F32):
    """(query, key, value, options), rounded to their types."""
    batch, heads, kv_heads, queries, keys, dim, value_dim, with_options = SHAPES[shape]
    rng = np.random.default_rng(list(SHAPES).index(shape))
    query = rounded(rng.standard_normal((batch, heads, queries, dim)), types[0])
    key = rounded(rng.standard_normal((batch, kv_heads, keys, dim)), types[1])
    value = rounded(rng.standard_normal((batch, kv_heads, keys, value_dim)), types[2])
    options = everything(rng, batch, heads, queries, keys) if with_options else Options()
    for name in ("bias", "alibi_slopes", "sinks"):
        if with_options:
            own = option_type if name == "bias" or option_type != F64 else F32
            setattr(options, name, rounded(getattr(options, name), own))
    return query, key, value, options


def typed_request(arrays, types, options, option_type, outputs=OUTPUTS, form="data"):
    request = sdpa_request(*arrays, options, outputs, form, per_head=True, types=types)
    for name in ("bias", "alibi_slopes", "sinks"):
        if (array := getattr(options, name)) is not None:
            own = option_type if name == "bias" or option_type != F64 else F32
            getattr(request.options, name).CopyFrom(to_tensor(array, form, own))
    return request


class MixturesTest(ServerTestCase):
    def check(self, shape, types, option_type=F32):
        *arrays, options = problem(shape, types, option_type)
        expected = oracle.attend(*arrays, options)
        answer = self.stub.ScaledDotProductAttention(typed_request(arrays, types, options, option_type), timeout=60)
        arithmetic = F64 if types[0] == F64 else F32
        wanted = {"output": types[0], "attention_weights": arithmetic, "log_sum_exp": F32, "scores": arithmetic}
        self.assertEqual({name: tensor.data_type for name, tensor in tensors_of(answer).items()}, wanted)
        if arithmetic == F64:
            allowed = self.double_tolerances(arrays, options, expected)
        else:
            near = tolerance.attention(arrays[2])
            allowed = {
                "output": near if types[0] == F32 else rounding(expected.output, types[0], near),
                "attention_weights": tolerance.WEIGHTS,
                "log_sum_exp": tolerance.LOG_SUM_EXP,
                "scores": tolerance.scores(arrays[0], arrays[1], options),
            }
        results = (expected.output, expected.weights, expected.log_sum_exp, expected.scores)
        for (name, bound), result in zip(allowed.items(), results, strict=True):
            assert_near(from_tensor(getattr(answer, name)), result, bound, name)

    @staticmethod
    def double_tolerances(arrays, options, expected):
        """The contract's bound; a score is rounded as often as in FLOAT32, and the log-sum-exp once, to FLOAT32."""
        return {
            "output": tolerance.DOUBLE * np.abs(arrays[2]).max(),
            "attention_weights": tolerance.DOUBLE,
            "log_sum_exp": rounding(np.nan_to_num(expected.log_sum_exp, neginf=0), F32, tolerance.DOUBLE),
            "scores": tolerance.scores(arrays[0], arrays[1], options) * 2.0**-29,
        }

    def test_every_mixture_of_single_precision(self):
        for shape in SHAPES:
            for types in ALL_SINGLE:
                with self.subTest(shape, types=names(types)):
                    self.check(shape, types)

    def test_float64(self):
        for shape in SHAPES:
            for option_type in (F64, *SINGLE):
                with self.subTest(shape, options=name_of(option_type)):
                    self.check(shape, (F64,) * 3, option_type)

    def test_options_of_every_type(self):
        for option_type in SINGLE:
            for types in ((F32,) * 3, (BF16,) * 3, (F16, BF16, F32)):
                with self.subTest(name_of(option_type), types=names(types)):
                    self.check("everything at once", types, option_type)

    def test_values_form_gives_what_data_gives(self):
        """Numbers of no type are rounded by the server as element_types rounds them, and come back as float32."""
        mixtures = [(F64,) * 3, (F16,) * 3, (BF16,) * 3, (F32, BF16, F16), (F16, F32, BF16)]
        for types, option_type in itertools.product(mixtures, (F32, F16, BF16)):
            with self.subTest(names(types), options=name_of(option_type)):
                *arrays, options = problem("everything at once", (F32,) * 3)
                outputs = (*OUTPUTS, TOP)
                options.top_k = 3
                one, other = (
                    self.stub.ScaledDotProductAttention(
                        typed_request(arrays, types, options, option_type, outputs, form), timeout=60
                    )
                    for form in ("data", "values")
                )
                for name, tensor in tensors_of(one).items():
                    expected, actual = from_tensor(tensor), getattr(other, name)
                    self.assertEqual(actual.data_type, tensor.data_type)
                    self.assertFalse(actual.data)
                    expected = expected if tensor.data_type == INT32 else expected.astype(np.float32)
                    assert_same_bits(from_tensor(actual), expected, name)


class RoundingTest(ServerTestCase):
    def identity(self, value, value_type, output_type):
        """One key's value comes out as it is, rounded to the type of the query."""
        one = np.ones((1, 1))
        request = sdpa_request(one, one, value, types=(output_type, F32 if output_type != F64 else F64, value_type))
        return from_tensor(self.stub.ScaledDotProductAttention(request, timeout=60).output)

    def test_every_number_of_16_bits_comes_back(self):
        bits = np.arange(1 << 16, dtype="<u2").reshape(1, -1)
        for data_type, wide in ((F16, bits.view("<f2").astype("<f4")), (BF16, (bits.astype("<u4") << 16).view("<f4"))):
            numbers = np.where(np.isnan(wide), np.float32(0), wide) + np.float32(0)  # A sum with 0 is never -0.
            for output_type in (data_type, F32):
                with self.subTest(name_of(data_type), output=name_of(output_type)):
                    assert_same_bits(self.identity(numbers, data_type, output_type), numbers, "value")
            self.assertTrue(np.isnan(self.identity(wide, data_type, data_type))[np.isnan(wide)].all())

    def test_results_are_rounded_to_nearest_and_ties_to_even(self):
        """All kinds of float32 numbers, and those halfway between numbers of 16 bits and beside."""
        random = np.random.default_rng(1).integers(0, 1 << 32, 20000, dtype=np.uint32)
        halfway = np.add.outer(np.arange(0, 1 << 32, 0x1000, dtype=np.uint64)[::37], [-1, 0, 1]).ravel()
        numbers = np.concatenate((random, (halfway % (1 << 32)).astype(np.uint32))).view(np.float32)
        numbers = numbers[np.isfinite(numbers)].reshape(1, -1) + np.float32(0)
        for data_type in (F16, BF16):
            with self.subTest(name_of(data_type)):
                assert_same_bits(self.identity(numbers, F32, data_type), rounded(numbers, data_type), "rounded")

    def test_float64_keeps_what_float32_cannot_hold(self):
        numbers = np.array([[np.pi, 1e300, -1e-300, 1 + 2.0**-52]])
        assert_same_bits(self.identity(numbers, F64, F64), numbers, "value")


class ReportedTest(ServerTestCase):
    def test_the_server_names_the_types(self):
        info = self.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
        self.assertLessEqual({F32, F64, F16, BF16}, set(info.supported_data_types))

    def test_embeddings_decide_the_types_of_keys_and_values(self):
        """Without a layer: float32 tokens in the context of 16-bit embeddings are returned rounded."""
        rng = np.random.default_rng(2)
        x, context = rng.standard_normal((3, 8)), rng.standard_normal((5, 8))
        for data_type in (F16, BF16):
            request = pb.AttendRequest(embeddings=to_tensor(x, data_type=data_type), context=to_tensor(context))
            request.options.CopyFrom(to_options(Options()))
            request.outputs.extend([OUTPUT, KEY])
            answer = self.stub.Attend(request, timeout=60)
            self.assertEqual((answer.output.data_type, answer.key.data_type), (data_type, data_type))
            assert_same_bits(from_tensor(answer.key)[0], rounded(rounded(context, F32), data_type), "key")


if __name__ == "__main__":
    unittest.main()
