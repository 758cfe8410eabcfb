"""Ragged batches: sequences of different lengths laid end to end are each answered as if they had come alone."""

import concurrent.futures
import itertools
import unittest

import numpy as np

from attend_testing import oracle, tolerance
from attend_testing.element_types import BF16, F32, F64, INT32, rounded
from attend_testing.oracle import Options
from attend_testing.requests import sdpa_request, to_layer, to_options
from attend_testing.server import ServerTestCase
from attend_testing.stubs import pb
from attend_testing.tensors import (
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

OUTPUTS = (OUTPUT, WEIGHTS, LOG_SUM_EXP, SCORES, TOP)
HEADS, KV_HEADS, DIM, VALUE_DIM = 4, 2, 19, 16

# Name: (queries of each sequence, keys of each).
BATCHES = {
    "one": ([5], [7]),
    "several": ([3, 70, 1, 9], [5, 70, 1100, 64]),
    "without queries": ([0, 3, 0, 4, 0], [2, 5, 9, 4, 1]),
    "without keys": ([3, 4, 2], [0, 9, 0]),
    "without anything": ([0, 6, 0, 0], [0, 6, 0, 0]),
    "decode": ([1] * 9, [1, 30, 2, 300, 4, 5, 6, 1025, 8]),
}


def cumulative(lengths):
    return [0, *itertools.accumulate(lengths)]


def with_everything(rng, heads, queries, columns):
    return {
        "causal": Options(causal="bottom_right"),
        "top_left_window": Options(causal="top_left", left=4),
        "mask": Options(mask=rng.random((queries, columns)) < 0.7),
        "mask_per_head": Options(mask=rng.random((1, heads, queries, columns)) < 0.7),
        "mask_of_keys": Options(mask=rng.random((1, 1, 1, columns)) < 0.7),
        "bias": Options(bias=rng.standard_normal((queries, columns), np.float32)),
        "bias_of_rows": Options(bias=rng.standard_normal((1, heads, queries, 1), np.float32)),
        "alibi_sinks": Options(alibi_slopes=np.linspace(0.5, 0.125, heads), sinks=np.linspace(-1, 1, heads)),
        "everything": Options(
            scale=0.25, softcap=4.0, causal="bottom_right", left=30, right=2,
            mask=rng.random((1, 1, queries, columns)) < 0.8,
            bias=rng.standard_normal((1, heads, queries, columns), np.float32),
            alibi_slopes=np.linspace(0.5, 0.125, heads), sinks=np.linspace(-1, 1, heads),
        ),
    }  # fmt: skip


class Batch:
    """Tensors [1, heads, total, dim] and options of a ragged batch."""

    def __init__(self, name, option=None, data_type=F32):
        self.queries, self.keys = BATCHES[name]
        self.data_type = data_type
        rng = np.random.default_rng(list(BATCHES).index(name))
        total, columns = sum(self.queries), max(1, *self.keys)
        shapes = ((HEADS, total, DIM), (KV_HEADS, sum(self.keys), DIM), (KV_HEADS, sum(self.keys), VALUE_DIM))
        self.arrays = [rounded(rng.standard_normal((1, *shape)), data_type) for shape in shapes]
        self.options = with_everything(rng, HEADS, total, columns)[option] if option else Options()
        self.options.cumulative_query_lengths = cumulative(self.queries)
        self.options.cumulative_key_lengths = cumulative(self.keys)
        self.options.top_k = 3

    def request(self, form="data", per_head=True):
        return sdpa_request(*self.arrays, self.options, OUTPUTS, form, per_head, (self.data_type,) * 3)

    def alone(self, n, per_head=True):
        """Sequence n as a request of its own; without keys it sees one that is not valid."""
        options = oracle.of_sequence(self.options, self.rows(n), slice(0, max(self.keys[n], 1)))
        start = min(self.options.cumulative_key_lengths[n], sum(self.keys) - max(self.keys[n], 1))
        seen = slice(start, start + max(self.keys[n], 1))
        if self.keys[n] == 0:
            options.valid_lengths = [0]
        query, key, value = self.arrays
        parts = query[:, :, self.rows(n)], key[:, :, seen], value[:, :, seen]
        return sdpa_request(*parts, options, OUTPUTS, "data", per_head, (self.data_type,) * 3)

    def rows(self, n):
        return slice(*self.options.cumulative_query_lengths[n : n + 2])


BEYOND = {"attention_weights": 0, "scores": -np.inf}


def assert_rows(whole, one, rows, axis, what):
    """Of every tensor: the rows are those of `one`, and columns beyond its own stand for no key."""
    for name, tensor in tensors_of(one).items():
        actual, expected = from_tensor(getattr(whole, name)), from_tensor(tensor)
        actual = np.take(actual, range(rows.start, rows.stop), axis=axis)
        if name in BEYOND:
            columns = expected.shape[-1]
            beyond = actual[..., columns:]
            assert_same_bits(beyond, np.full_like(beyond, BEYOND[name]), f"{what} {name} beyond the keys")
            actual = np.ascontiguousarray(actual[..., :columns])
        # Averaged maps have no axis of heads: see `axis`.
        assert_same_bits(np.ascontiguousarray(actual), expected, f"{what} {name}")


class RaggedTest(ServerTestCase):
    FLAGS = ("--threads", "2")

    def ask(self, request):
        return self.stub.ScaledDotProductAttention(request, timeout=60)

    def test_each_sequence_has_the_bits_of_a_request_of_its_own(self):
        options = (None, *with_everything(np.random.default_rng(0), 1, 1, 1))
        for name, option in itertools.product(BATCHES, options):
            self.check_sequences(Batch(name, option), f"{name} {option}")

    def test_types(self):
        for data_type in (BF16, F64):
            for option in (None, "causal", "mask", "alibi_sinks"):
                self.check_sequences(Batch("several", option, data_type), f"{data_type} {option}")

    def check_sequences(self, batch, what):
        whole = self.ask(batch.request())
        for n, queries in enumerate(batch.queries):
            if queries:
                with self.subTest(what, sequence=n):
                    assert_rows(whole, self.ask(batch.alone(n)), batch.rows(n), 2, what)

    def test_averaged_maps(self):
        for name in BATCHES:
            batch = Batch(name, "everything")
            whole = self.ask(batch.request(per_head=False))
            for n, queries in enumerate(batch.queries):
                if not queries:
                    continue
                one = self.ask(batch.alone(n, per_head=False))
                for field in ("output", "log_sum_exp", "scores"):
                    one.ClearField(field)
                with self.subTest(name, sequence=n):
                    assert_rows(whole, one, batch.rows(n), 1, name)

    def test_against_float64(self):
        for name, option in itertools.product(BATCHES, (None, "causal", "mask_per_head", "bias", "everything")):
            with self.subTest(name, option=option):
                batch = Batch(name, option)
                answer, expected = self.ask(batch.request()), oracle.attend(*batch.arrays, batch.options)
                near = tolerance.attention(batch.arrays[2])
                assert_near(from_tensor(answer.output), expected.output, near, "output")
                assert_near(from_tensor(answer.attention_weights), expected.weights, tolerance.WEIGHTS, "weights")
                assert_near(from_tensor(answer.log_sum_exp), expected.log_sum_exp, tolerance.LOG_SUM_EXP, "lse")
                allowed = tolerance.scores(*batch.arrays[:2], batch.options)
                assert_near(from_tensor(answer.scores), expected.scores, allowed, "scores")

    def test_a_key_mask_is_over_the_keys_of_all_sequences(self):
        for name, option in itertools.product(BATCHES, (None, "causal", "everything")):
            batch = Batch(name, option)
            mask = np.random.default_rng(5).random(sum(batch.keys)) < 0.7
            for shape in ((-1,), (1, -1)):
                with self.subTest(name, option=option, shape=shape):
                    batch.options.key_mask = mask.reshape(shape)
                    answer, expected = self.ask(batch.request()), oracle.attend(*batch.arrays, batch.options)
                    near = tolerance.attention(batch.arrays[2])
                    assert_near(from_tensor(answer.output), expected.output, near, "output")
                    assert_near(from_tensor(answer.attention_weights), expected.weights, tolerance.WEIGHTS, "weights")

    def test_values_form_gives_what_data_gives(self):
        batch = Batch("several", "everything")
        data, values = self.ask(batch.request()), self.ask(batch.request("values"))
        for name, tensor in tensors_of(data).items():
            assert_same_bits(from_tensor(getattr(values, name)), from_tensor(tensor), name)
        self.assertEqual(values.top_attention_indices.data_type, INT32)

    def test_among_concurrent_requests(self):
        """Whole batches and single sequences at once, in any order, have the bits that they have one after the other."""
        requests = [Batch(name, option).request() for name in BATCHES for option in (None, "everything")]
        several = Batch("several", "everything")
        requests += [several.alone(n) for n in range(4)]
        expected = [self.ask(request).SerializeToString() for request in requests]

        def check(seed):
            for i in np.random.default_rng(seed).permutation(len(requests)):
                self.assertEqual(self.ask(requests[i]).SerializeToString(), expected[i], f"request {i}")

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for result in [pool.submit(check, seed) for seed in range(8)]:
                result.result()

    def test_one_sequence_is_what_it_is_without_lengths(self):
        batch = Batch("one", "causal")
        ragged = self.ask(batch.request())
        batch.options.cumulative_query_lengths = batch.options.cumulative_key_lengths = None
        self.assertEqual(ragged, self.ask(batch.request()))

    def test_fewer_axes(self):
        batch = Batch("several", "causal")
        request = batch.request()
        whole = from_tensor(self.ask(request).output)
        for name in ("query", "key", "value"):
            del getattr(request, name).shape[0]
        assert_same_bits(from_tensor(self.ask(request).output), whole[0], "three axes")


class AttendRaggedTest(ServerTestCase):
    """Attend: the same lengths for keys by default, which is self-attention of each sequence."""

    def request(self, x, options, layer=None, context=None):
        request = pb.AttendRequest(embeddings=to_tensor(x), options=to_options(options), outputs=[OUTPUT, WEIGHTS])
        if layer:
            request.layer.CopyFrom(to_layer(layer, 3))
        if context is not None:
            request.context.CopyFrom(to_tensor(context))
        return request

    def setUp(self):
        self.rng = np.random.default_rng(5)
        self.x = self.rng.standard_normal((23, 12), np.float32)
        sizes = {"query": (12, 12), "key": (12, 12), "value": (12, 12), "output": (7, 12)}
        self.layer = {n: (self.rng.standard_normal(s, np.float32) / 4, None) for n, s in sizes.items()}

    def test_keys_default_to_the_queries(self):
        lengths = [5, 0, 1, 17]
        for layer, batched in itertools.product((None, self.layer), (False, True)):
            x = self.x[None] if batched else self.x
            options = Options(causal="bottom_right", cumulative_query_lengths=cumulative(lengths))
            whole = self.stub.Attend(self.request(x, options, layer), timeout=60)
            options.cumulative_key_lengths = options.cumulative_query_lengths
            self.assertEqual(whole, self.stub.Attend(self.request(x, options, layer), timeout=60))
            for first, last in itertools.pairwise(cumulative(lengths)):
                if first == last:
                    continue
                request = self.request(x[..., first:last, :], Options(causal="bottom_right"), layer)
                with self.subTest(layer=bool(layer), batched=batched, first=first):
                    one = self.stub.Attend(request, timeout=60)
                    assert_rows(whole, one, slice(first, last), int(batched), f"tokens {first} to {last}")

    def test_context_with_lengths_of_its_own(self):
        context = self.rng.standard_normal((30, 12), np.float32)
        queries, keys = [20, 3], [1, 29]
        options = Options(cumulative_query_lengths=cumulative(queries), cumulative_key_lengths=cumulative(keys))
        whole = self.stub.Attend(self.request(self.x, options, self.layer, context), timeout=60)
        for rows, seen in ((slice(0, 20), slice(0, 1)), (slice(20, 23), slice(1, 30))):
            request = self.request(self.x[rows], Options(), self.layer, context[seen])
            assert_rows(whole, self.stub.Attend(request, timeout=60), rows, 0, f"{rows}")


if __name__ == "__main__":
    unittest.main()
