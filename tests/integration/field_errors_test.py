"""What can be wrong with types, ragged batches, top weights and partial results; see errors_test for the rest."""

import typing
import unittest

import numpy as np

from attend_testing.element_types import BF16, BOOL, F16, F32, F64, INT32, name_of
from attend_testing.errors import call_failure
from attend_testing.refusals import RefusalTestCase, attend, boolean, ones, raw, sdpa
from attend_testing.server import ServerTestCase, resident_growth
from attend_testing.stubs import pb
from attend_testing.tensors import LOG_SUM_EXP, OUTPUT, SCORES, TOP, WEIGHTS, to_tensor

INT64_MIN, INT64_MAX, INT32_MIN, INT32_MAX = -(2**63), 2**63 - 1, -(2**31), 2**31 - 1
QUERIES, KEYS = "options.cumulative_query_lengths", "options.cumulative_key_lengths"
SIZES = {F32: 4, F64: 8, F16: 2, BF16: 2}


def zeros(shape, data_type, more=0):
    """As many bytes as the shape takes, and `more` than those."""
    return raw(shape, b"\0" * (int(np.prod(shape)) * SIZES.get(data_type, 4) + more), data_type=data_type)


def ragged(queries, keys, **changes):
    """6 queries and 8 keys in one batch entry."""
    shapes = {"query": (1, 2, 6, 8), "key": (1, 2, 8, 8), "value": (1, 2, 8, 8)}
    tensors = {name: to_tensor(ones(*shape)) for name, shape in shapes.items()}
    lengths = {"options__cumulative_query_lengths": queries, "options__cumulative_key_lengths": keys}
    return sdpa(**(tensors | lengths | changes))


# What it is: (request, the path of the offending field).
RAGGED = {
    "no keys": (ragged([0, 6], []), KEYS),
    "no queries": (ragged([], [0, 8]), QUERIES),
    "one query length": (ragged([0], [0, 8]), QUERIES),
    "one key length": (ragged([0, 6], [0]), KEYS),
    "not starting with 0": (ragged([1, 6], [0, 8]), f"{QUERIES}[0]"),
    "keys not starting with 0": (ragged([0, 6], [2, 8]), f"{KEYS}[0]"),
    "starting below 0": (ragged([-1, 6], [0, 8]), f"{QUERIES}[0]"),
    "falling": (ragged([0, 4, 3, 6], [0, 1, 2, 8]), f"{QUERIES}[2]"),
    "keys falling": (ragged([0, 1, 2, 6], [0, 4, 3, 8]), f"{KEYS}[2]"),
    "falling at the end": (ragged([0, 7, 6], [0, 1, 8]), f"{QUERIES}[2]"),
    "ending too early": (ragged([0, 2, 5], [0, 1, 8]), f"{QUERIES}[2]"),
    "ending too late": (ragged([0, 2, 7], [0, 1, 8]), f"{QUERIES}[2]"),
    "keys ending too early": (ragged([0, 2, 6], [0, 1, 7]), f"{KEYS}[2]"),
    "keys ending too late": (ragged([0, 2, 6], [0, 1, 9]), f"{KEYS}[2]"),
    "lengths instead of their sums": (ragged([2, 4], [0, 8]), f"{QUERIES}[0]"),
    "fewer key than query lengths": (ragged([0, 2, 6], [0, 8]), KEYS),
    "more key than query lengths": (ragged([0, 6], [0, 4, 8]), KEYS),
    "2^62": (ragged([0, 2**62, 6], [0, 4, 8]), f"{QUERIES}[2]"),
    "2^62 at the end": (ragged([0, 2**62], [0, 8]), f"{QUERIES}[1]"),
    "greatest": (ragged([0, 6], [0, INT64_MAX]), f"{KEYS}[1]"),
    "least": (ragged([0, INT64_MIN, 6], [0, 4, 8]), f"{QUERIES}[1]"),
    "greatest and least": (ragged([0, INT64_MAX, INT64_MIN, 6], [0, 4, 4, 8]), f"{QUERIES}[2]"),
    "65538 of them": (ragged([0] * 65537 + [6], [0, 8]), QUERIES),
    "65538 key lengths": (ragged([0, 6], [0] * 65537 + [8]), KEYS),
    "a million": (ragged([0] * 10**6, [0] * 10**6), QUERIES),
    "several batch entries": (
        sdpa(options__cumulative_query_lengths=[0, 3], options__cumulative_key_lengths=[0, 4]), QUERIES,
    ),
    "with valid lengths": (ragged([0, 6], [0, 8], options__valid_lengths=[8]), "options.valid_lengths"),
    "with valid lengths of a wrong number": (
        ragged([0, 6], [0, 8], options__valid_lengths=[8, 8]), "options.valid_lengths",
    ),
    "mask of all keys": (ragged([0, 2, 6], [0, 3, 8], options__mask=boolean(6, 8)), "options.mask.shape"),
    "mask of all pairs of queries": (ragged([0, 2, 6], [0, 3, 8], options__mask=boolean(4, 5)), "options.mask.shape"),
    "bias of all keys": (ragged([0, 2, 6], [0, 3, 8], options__bias=to_tensor(ones(6, 8))), "options.bias.shape"),
}  # fmt: skip


def top_k(k, outputs=(TOP,), **changes):
    return sdpa(options__top_k=k, outputs=list(outputs), **changes)


TOP_K = {
    "none": (top_k(0), "options.top_k"),
    "negative": (top_k(-1), "options.top_k"),
    "least": (top_k(INT32_MIN), "options.top_k"),
    "2^20 + 1": (top_k(2**20 + 1), "options.top_k"),
    "greatest": (top_k(INT32_MAX), "options.top_k"),
    "not asked for": (top_k(3, [OUTPUT, WEIGHTS]), "options.top_k"),
    "not asked for by default": (top_k(3, []), "options.top_k"),
    "negative and not asked for": (top_k(-3, [OUTPUT]), "options.top_k"),
}


def partials(output=(2, 2, 2, 3, 8), log_sum_exp=(2, 2, 2, 3), types=(F32, F32), more=0, outputs=(OUTPUT,), **changes):
    """Two parts for the good request; a shape of None leaves the tensor out."""
    message = pb.PartialAttention()
    for name, shape, data_type in zip(("output", "log_sum_exp"), (output, log_sum_exp), types, strict=True):
        if shape is not None:
            getattr(message, name).CopyFrom(zeros(shape, data_type, more))
    return sdpa(partials=message, outputs=list(outputs), **changes)


PARTIALS = {
    "nothing": (partials(None, None), "partials.output"),
    "no log-sum-exp": (partials(log_sum_exp=None), "partials.log_sum_exp"),
    "no output": (partials(None), "partials.output"),
    "no axis of parts": (partials((2, 2, 3, 8), (2, 2, 3)), "partials.output.shape"),
    "too few axes": (partials((3, 8)), "partials.output.shape"),
    "too many axes": (partials((1, 2, 2, 2, 3, 8)), "partials.output.shape"),
    "no parts": (partials((0, 2, 2, 3, 8)), "partials.output.shape[0]"),
    "other batch": (partials((2, 3, 2, 3, 8)), "partials.output.shape"),
    "other heads": (partials((2, 2, 4, 3, 8)), "partials.output.shape"),
    "other queries": (partials((2, 2, 2, 4, 8)), "partials.output.shape"),
    "other values": (partials((2, 2, 2, 3, 9)), "partials.output.shape"),
    "other number of log-sum-exps": (partials(log_sum_exp=(3, 2, 2, 3)), "partials.log_sum_exp.shape"),
    "log-sum-exps of other batch": (partials(log_sum_exp=(2, 1, 2, 3)), "partials.log_sum_exp.shape"),
    "log-sum-exps of other heads": (partials(log_sum_exp=(2, 2, 1, 3)), "partials.log_sum_exp.shape"),
    "log-sum-exps of other queries": (partials(log_sum_exp=(2, 2, 2, 2)), "partials.log_sum_exp.shape"),
    "log-sum-exps with a last axis": (partials(log_sum_exp=(2, 2, 2, 3, 1)), "partials.log_sum_exp.shape"),
    "log-sum-exps as the values": (partials(log_sum_exp=(2, 2, 2, 3, 8)), "partials.log_sum_exp.shape"),
    "a byte too many": (partials(more=1), "partials.output.data"),
    "a byte too few": (partials(more=-1), "partials.output.data"),
    "a million million million parts": (
        sdpa(partials=pb.PartialAttention(output=raw([2**60, 2, 2, 3, 8], b"\0"))), "partials.output.shape",
    ),
    "1025 parts": (partials((1025, 2, 2, 3, 8), (1025, 2, 2, 3)), "partials.output.shape[0]"),
    "with weights": (partials(outputs=[OUTPUT, WEIGHTS]), "partials"),
    "with scores": (partials(outputs=[LOG_SUM_EXP, SCORES]), "partials"),
    "with top weights": (partials(outputs=[TOP], options__top_k=1), "partials"),
    **{
        f"output of {name_of(t)}": (partials(types=(t, F32)), "partials.output.data_type")
        for t in (F64, F16, BF16, BOOL, INT32)
    },
    **{
        f"log-sum-exps of {name_of(t)}": (partials(types=(F32, t)), "partials.log_sum_exp.data_type")
        for t in (F64, F16, BF16, BOOL, INT32)
    },
    **{f"query of {name_of(t)}": (partials(query=zeros((2, 2, 3, 8), t)), "partials") for t in (F16, BF16)},
    "FLOAT64 throughout": (
        partials(query=zeros((2, 2, 3, 8), F64), key=zeros((2, 2, 4, 8), F64), value=zeros((2, 2, 4, 8), F64)),
        "partials",
    ),
}  # fmt: skip

DOUBLES = {"query": zeros((2, 2, 3, 8), F64), "key": zeros((2, 2, 4, 8), F64), "value": zeros((2, 2, 4, 8), F64)}
TYPES = {
    **{f"FLOAT64 query with {name_of(t)}": (sdpa(**(DOUBLES | {"key": zeros((2, 2, 4, 8), t)})), "key.data_type")
       for t in (F32, F16, BF16)},
    **{f"FLOAT64 key with {name_of(t)}": (
        sdpa(query=zeros((2, 2, 3, 8), t), key=DOUBLES["key"]), "key.data_type") for t in (F32, F16, BF16)},
    **{f"FLOAT64 value with {name_of(t)}": (
        sdpa(query=zeros((2, 2, 3, 8), t), value=DOUBLES["value"]), "value.data_type") for t in (F32, F16, BF16)},
    **{f"{name_of(t)} value with FLOAT64": (sdpa(**(DOUBLES | {"value": zeros((2, 2, 4, 8), t)})), "value.data_type")
       for t in (F32, F16, BF16)},
    **{f"FLOAT64 bias with {name_of(t)}": (
        sdpa(query=zeros((2, 2, 3, 8), t), options__bias=zeros((3, 4), F64)), "options.bias.data_type")
       for t in (F32, F16, BF16)},
    **{f"{field} of {name_of(t)}": (sdpa(**DOUBLES, **{f"options__{field}": zeros((2,), t)}),
                                    f"options.{field}.data_type")
       for field in ("alibi_slopes", "sinks") for t in (INT32, BOOL)},
    **{f"{field} of FLOAT64 with {name_of(t)}": (
        sdpa(query=zeros((2, 2, 3, 8), t), **{f"options__{field}": zeros((2,), F64)}), f"options.{field}.data_type")
       for field in ("alibi_slopes", "sinks") for t in (F32, F16, BF16)},
    **{f"{field} of {name_of(t)}": (sdpa(**{field: zeros((2, 2, 4, 8), t)}), f"{field}.data_type")
       for field in ("query", "key", "value") for t in (INT32, BOOL)},
    **{f"mask of {name_of(t)}": (sdpa(options__mask=zeros((3, 4), t)), "options.mask.data_type")
       for t in (F64, F16, BF16, INT32)},
    **{f"bias of {name_of(t)}": (sdpa(options__bias=zeros((3, 4), t)), "options.bias.data_type") for t in (INT32, BOOL)},
}  # fmt: skip

ATTEND = {
    "types: FLOAT64 embeddings": (attend(embeddings=zeros((2, 4, 12), F64)), "layer.query_projection.weight.data_type"),
    "types: FLOAT64 context": (attend(context=zeros((2, 4, 12), F64)), "context.data_type"),
    "types: integers": (attend(embeddings=zeros((2, 4, 12), INT32)), "embeddings.data_type"),
    "types: truths": (attend(context=zeros((2, 4, 12), BOOL)), "context.data_type"),
    **{f"types: FLOAT64 {end} of the {name}": (attend(**{f"layer__{name}_projection__{end}": zeros(shape, F64)}),
                                               f"layer.{name}_projection.{end}.data_type")
       for name in ("query", "key", "value", "output") for end, shape in (("weight", (12, 12)), ("bias", (12,)))},
    **{f"types: integer {end}": (attend(**{f"layer__value_projection__{end}": zeros(shape, INT32)}),
                                 f"layer.value_projection.{end}.data_type")
       for end, shape in (("weight", (12, 12)), ("bias", (12,)))},
    "top: none": (attend(outputs=[TOP]), "options.top_k"),
    "top: 2^20 + 1": (attend(outputs=[TOP], options__top_k=2**20 + 1), "options.top_k"),
    "top: not asked for": (attend(options__top_k=1), "options.top_k"),
    "ragged: several batch entries": (attend(options__cumulative_query_lengths=[0, 4]), QUERIES),
    "ragged: keys alone": (
        attend(embeddings=to_tensor(ones(1, 4, 12)), options__cumulative_key_lengths=[0, 4]), QUERIES),
    "ragged: context without lengths": (
        attend(embeddings=to_tensor(ones(4, 12)), context=to_tensor(ones(5, 12)),
               options__cumulative_query_lengths=[0, 4]), KEYS),
    "ragged: wrong end": (
        attend(embeddings=to_tensor(ones(4, 12)), options__cumulative_query_lengths=[0, 5]), f"{QUERIES}[1]"),
    "ragged: other lengths of keys": (
        attend(embeddings=to_tensor(ones(4, 12)), options__cumulative_query_lengths=[0, 1, 4],
               options__cumulative_key_lengths=[0, 4]), KEYS),
    "ragged: with valid lengths": (
        attend(embeddings=to_tensor(ones(4, 12)), options__cumulative_query_lengths=[0, 4],
               options__valid_lengths=[4]), "options.valid_lengths"),
}  # fmt: skip


class FieldErrorsTest(RefusalTestCase):
    def check_table(self, method, table):
        for what, (request, field) in table.items():
            with self.subTest(what):
                self.check_refused(method, request, field)

    def test_ragged_batches(self):
        self.check_table(self.stub.ScaledDotProductAttention, RAGGED)

    def test_top_weights(self):
        self.check_table(self.stub.ScaledDotProductAttention, TOP_K)

    def test_partials(self):
        self.check_table(self.stub.ScaledDotProductAttention, PARTIALS)

    def test_types(self):
        self.check_table(self.stub.ScaledDotProductAttention, TYPES)

    def test_attend(self):
        self.check_table(self.stub.Attend, ATTEND)

    def test_numbers_of_bytes(self):
        """For each type: as many as the shape takes, one more, one less, and those of a type of half or twice the size."""
        for data_type, size in SIZES.items():
            good = {name: zeros(tuple(tensor.shape), data_type) for name, tensor in DOUBLES.items()}
            self.stub.ScaledDotProductAttention(sdpa(**good), timeout=60)
            for more in (1, -1, 384 // 4 * size, -(384 // 8) * size):
                with self.subTest(name_of(data_type), more=more):
                    request = sdpa(**(good | {"query": zeros((2, 2, 3, 8), data_type, more)}))
                    self.check_refused(self.stub.ScaledDotProductAttention, request, "query.data")

    def test_what_is_just_right_is_served(self):
        for request in (
            ragged([0] * 65536 + [6], [0] * 65536 + [8]),
            ragged([0, 2, 2, 6], [0, 0, 8, 8]),
            ragged([0, 2, 6], [0, 3, 8], options__mask=boolean(6, 5), options__bias=to_tensor(ones(1, 1, 1, 5))),
            top_k(1),
            partials(),
            partials((1024, 2, 2, 3, 8), (1024, 2, 2, 3)),
            sdpa(**DOUBLES, options__bias=zeros((3, 4), BF16)),
        ):
            self.stub.ScaledDotProductAttention(request, timeout=60)


class MemoryTest(ServerTestCase):
    """Small requests that claim much, in fields that a server must not believe before it has checked them."""

    ALLOWED = resident_growth(16 << 20)

    CLAIMS: typing.ClassVar = {
        "parts": sdpa(partials=pb.PartialAttention(output=raw([1024, 2, 2, 2**30, 8], b"\0"))),
        "log-sum-exps": partials(log_sum_exp=None, partials__log_sum_exp=raw([2**20, 2**20], values=[1])),
        "FLOAT64 elements": sdpa(query=raw([1, 1, 2**20, 2**20], b"\0" * 8, data_type=F64)),
        "16-bit bias": sdpa(options__bias=raw([2**19, 2**20], b"\0\0", data_type=BF16)),
        "sequences": ragged([0, 2**40], [0, 2**40]),
        "sequences that are counted down": ragged([0, INT64_MAX, 6], [0, INT64_MAX, 8]),
        "mask of the longest sequence": ragged([0, 6], [0, 8], options__mask=raw([2**20, 2**30], b"\1", data_type=BOOL)),
        "top weights of many rows": top_k(2**20, query=to_tensor(ones(2, 64, 64, 8))),
        "greatest number of top weights": top_k(INT32_MAX),
    }

    def growth(self, request):
        self.stub.ScaledDotProductAttention(sdpa(), timeout=60)
        self.server.reset_peak_rss()
        before = self.server.rss_bytes()
        failures = [call_failure(self.stub.ScaledDotProductAttention, request) for _ in range(50)]
        self.assertEqual(len({failure.code for failure in failures}), 1)
        return self.server.peak_rss_bytes() - before

    def test_claims_are_checked_before_memory_is_taken(self):
        for what, request in self.CLAIMS.items():
            with self.subTest(what):
                self.assertLess(request.ByteSize(), 300_000)
                self.assertLess(self.growth(request), self.ALLOWED)


if __name__ == "__main__":
    unittest.main()
