"""Keys spread over requests: results over parts of the keys, merged by the server, are those over all keys."""

import itertools
import unittest

import numpy as np

from attend_testing import oracle, tolerance
from attend_testing.element_types import BF16, F32
from attend_testing.oracle import Options
from attend_testing.requests import sdpa_request
from attend_testing.server import ServerTestCase
from attend_testing.stubs import pb
from attend_testing.tensors import LOG_SUM_EXP, OUTPUT, assert_near, assert_same_bits, from_tensor, tensors_of, to_tensor

BOTH = [OUTPUT, LOG_SUM_EXP]

# Shape of the query; shapes of keys and values without their number of tokens.
SHAPES = {
    "two axes": ((5, 16), (16,), (12,)),
    "three axes": ((4, 1, 16), (2, 16), (2, 12)),
    "four axes": ((2, 4, 37, 16), (2, 2, 16), (2, 2, 12)),
}
# Where a part ends; one of the parts of the second split is a single key.
SPLITS = {"three thirds": [0, 30, 60, 90], "uneven": [0, 1, 80, 90], "many": [*range(0, 91, 3)]}


class PartialsTest(ServerTestCase):
    def setUp(self):
        self.rng = np.random.default_rng(1)

    def problem(self, shape):
        query, key, value = SHAPES[shape]
        key, value = ((*axes[:-1], 90, axes[-1]) for axes in (key, value))
        return [self.rng.standard_normal(axes, np.float32) for axes in (query, key, value)]

    def ask(self, arrays, options=None, partials=None, outputs=BOTH, **more):
        request = sdpa_request(*arrays, options, outputs, **more)
        if partials is not None:
            output, log_sum_exp = partials
            form = more.get("form", "data")
            request.partials.output.CopyFrom(to_tensor(output, form))
            request.partials.log_sum_exp.CopyFrom(to_tensor(log_sum_exp, form))
        answer = self.stub.ScaledDotProductAttention(request, timeout=60)
        return [from_tensor(tensor) for tensor in tensors_of(answer).values()]

    def part(self, arrays, start, end, **more):
        """The keys [start, end); none of them if it is empty: one key that is not valid, whose numbers are NaN."""
        query, key, value = arrays
        if start == end:
            nothing = [np.full_like(x[..., :1, :], np.nan) for x in (key, value)]
            batch = query.shape[0] if query.ndim == 4 else 1
            return self.ask([query, *nothing], Options(valid_lengths=[0] * batch), **more)
        return self.ask([query, key[..., start:end, :], value[..., start:end, :]], **more)

    def assert_whole(self, merged, arrays, what):
        output, log_sum_exp = self.ask(arrays)
        assert_near(merged[0], output, tolerance.attention(arrays[2]), f"{what} output")
        assert_near(merged[1], log_sum_exp, tolerance.LOG_SUM_EXP, f"{what} log-sum-exp")
        query, key, value = (x.reshape((1,) * (4 - x.ndim) + x.shape) for x in arrays)
        expected = oracle.attend(query, key, value).output.reshape(output.shape)
        assert_near(merged[0], expected, tolerance.attention(value), f"{what} output against float64")

    def test_parts_at_once(self):
        for shape, (name, ends) in itertools.product(SHAPES, SPLITS.items()):
            with self.subTest(shape, split=name):
                arrays = self.problem(shape)
                parts = [self.part(arrays, *ends[i : i + 2]) for i in range(1, len(ends) - 1)]
                stacked = [np.stack(tensors) for tensors in zip(*parts, strict=True)]
                self.assert_whole(self.part(arrays, *ends[:2], partials=stacked), arrays, name)

    def test_a_chain_of_requests(self):
        """Each merges what the one before it gave; one of them sees no key at all and changes nothing, to the bit."""
        for shape, (name, ends) in itertools.product(SHAPES, SPLITS.items()):
            with self.subTest(shape, split=name):
                arrays = self.problem(shape)
                so_far = self.part(arrays, *ends[:2])
                for i in range(1, len(ends) - 1):
                    so_far = self.part(arrays, *ends[i : i + 2], partials=[x[None] for x in so_far])
                    same = self.part(arrays, 0, 0, partials=[x[None] for x in so_far])
                    for one, other in zip(same, so_far, strict=True):
                        assert_same_bits(one, other, "merged with nothing")
                self.assert_whole(so_far, arrays, name)

    def test_an_empty_part_is_ignored_whatever_its_output_holds(self):
        arrays = self.problem("four axes")
        first, second = self.part(arrays, 0, 40), self.part(arrays, 40, 90)
        nothing = [np.full_like(first[0], np.nan), np.full_like(first[1], -np.inf)]
        without = self.part(arrays, 0, 40, partials=[x[None] for x in second])
        parts = [np.stack(x) for x in zip(nothing, second, nothing, strict=True)]
        for one, other in zip(self.part(arrays, 0, 40, partials=parts), without, strict=True):
            assert_same_bits(one, other, "with empty parts")
        self.assert_whole(without, arrays, "two parts")

    def test_nothing_but_empty_parts(self):
        arrays = self.problem("two axes")
        output, log_sum_exp = self.part(arrays, 0, 0)
        merged = self.part(arrays, 0, 0, partials=[output[None], log_sum_exp[None]])
        self.assertFalse(merged[0].any())
        self.assertTrue(np.isneginf(merged[1]).all())

    def test_own_keys_whose_log_sum_exp_is_below_the_range(self):
        """They count where no part saw a key, and weigh nothing beside one that did."""
        arrays = [np.array(x, np.float32) for x in ([[1e20]], [[-1e20]] * 2, [[1], [3]])]
        for log_sum_exp, expected in ((-np.inf, 2), (0, 9)):
            part = [np.full((1, 1, 1), 9, np.float32), np.full((1, 1), log_sum_exp, np.float32)]
            with self.subTest(log_sum_exp):
                output, merged = self.ask(arrays, partials=part)
                self.assertEqual((output.item(), merged.item()), (expected, log_sum_exp))

    def test_rows_that_some_part_does_not_see(self):
        """Masks differ from part to part; a row may be empty in one of them, or in all."""
        query, key, value = arrays = self.problem("three axes")
        mask = self.rng.random((1, 4, 1, 90)) < 0.05
        mask[:, 0] = False
        mask[:, 1, :, :45] = False
        options = [Options(mask=mask[..., :45]), Options(mask=mask[..., 45:])]
        second = self.ask([query, key[:, 45:], value[:, 45:]], options[1])
        merged = self.ask([query, key[:, :45], value[:, :45]], options[0], [x[None] for x in second])
        whole = self.ask(arrays, Options(mask=mask))
        assert_near(merged[0], whole[0], tolerance.attention(value), "output")
        assert_near(merged[1], whole[1], tolerance.LOG_SUM_EXP, "log-sum-exp")

    def test_a_sink_in_one_of_the_parts(self):
        query, key, value = arrays = self.problem("four axes")
        sinks = np.array([0.0, 2.0, -1.0, 5.0])
        second = self.part(arrays, 45, 90)
        merged = self.ask(
            [query, key[..., :45, :], value[..., :45, :]], Options(sinks=sinks), [x[None] for x in second]
        )
        whole = self.ask(arrays, Options(sinks=sinks))
        assert_near(merged[0], whole[0], tolerance.attention(value), "output")
        assert_near(merged[1], whole[1], tolerance.LOG_SUM_EXP, "log-sum-exp")

    def test_each_result_alone(self):
        arrays = self.problem("four axes")
        second = [x[None] for x in self.part(arrays, 45, 90)]
        both = self.part(arrays, 0, 45, partials=second)
        for kind, expected in zip(BOTH, both, strict=True):
            (alone,) = self.part(arrays, 0, 45, partials=second, outputs=[kind])
            assert_same_bits(alone, expected, pb.OutputKind.Name(kind))

    def test_values_form(self):
        arrays = self.problem("three axes")
        second = [x[None] for x in self.part(arrays, 45, 90)]
        data, values = (self.part(arrays, 0, 45, partials=second, form=form) for form in ("data", "values"))
        for one, other in zip(values, data, strict=True):
            assert_same_bits(one, other, "values")

    def test_a_cache_of_16_bits(self):
        """Key and value may have another type than the query."""
        _query, _key, value = arrays = self.problem("four axes")
        types = (F32, BF16, BF16)
        second = self.part(arrays, 45, 90, types=types)
        merged = self.part(arrays, 0, 45, partials=[x[None] for x in second], types=types)
        whole = self.ask(arrays, types=types)
        assert_near(merged[0], whole[0], tolerance.attention(value), "output")
        assert_near(merged[1], whole[1], tolerance.LOG_SUM_EXP, "log-sum-exp")

    def test_ragged_batches(self):
        """Keys of each sequence in two parts, one of them without keys for the second sequence."""
        query, key, value = self.problem("two axes")
        first, second = ([0, 10, 10], key[:10], value[:10]), ([0, 20, 80], key[10:], value[10:])
        queries = [0, 2, 5]
        answers = [
            self.ask([query, k, v], Options(cumulative_query_lengths=queries, cumulative_key_lengths=ends))
            for ends, k, v in (first, second)
        ]
        ends, k, v = first
        options = Options(cumulative_query_lengths=queries, cumulative_key_lengths=ends)
        merged = self.ask([query, k, v], options, [x[None] for x in answers[1]])
        options.cumulative_key_lengths = [0, 30, 90]
        whole = self.ask([query, key, value], options)
        assert_near(merged[0], whole[0], tolerance.attention(value), "output")
        assert_near(merged[1], whole[1], tolerance.LOG_SUM_EXP, "log-sum-exp")

    def test_as_many_parts_as_there_may_be(self):
        query, key, value = self.problem("two axes")
        output, log_sum_exp = self.ask([query, key, value])
        parts = [np.repeat(output[None], 1024, axis=0), np.repeat(log_sum_exp[None], 1024, axis=0)]
        merged = self.ask([query, key, value], partials=parts)
        assert_near(merged[0], output, tolerance.attention(value), "the same 1025 times")
        assert_near(merged[1], log_sum_exp + np.log(1025), tolerance.LOG_SUM_EXP, "log-sum-exp")


if __name__ == "__main__":
    unittest.main()
