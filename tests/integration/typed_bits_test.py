"""The same bits for any thread count and on every instruction set, as bits_test, for the other types, ragged batches, top
weights and merged results."""

import unittest

import numpy as np

import bits_test
from attend_testing.element_types import BF16, F16, F32, F64, encode, name_of
from attend_testing.oracle import Options
from attend_testing.requests import sdpa_request, to_layer, to_options
from attend_testing.server import Server
from attend_testing.stubs import pb, tensor_pb2
from attend_testing.tensors import LOG_SUM_EXP, OUTPUT, TOP, from_tensor, to_tensor

OUTPUTS = (*bits_test.SDPA_OUTPUTS, TOP)
MIXTURES = ((BF16,) * 3, (F16,) * 3, (F64,) * 3, (F32, BF16, BF16), (BF16, F32, F16))


def typed(name, types):
    """A case of bits_test in other types."""
    batch, heads, kv_heads, queries, keys, dim, value_dim, with_options = bits_test.SDPA_CASES[name]
    rng = np.random.default_rng(50 + list(bits_test.SDPA_CASES).index(name))
    shapes = (batch, heads, queries, dim), (batch, kv_heads, keys, dim), (batch, kv_heads, keys, value_dim)
    options = bits_test.options_of(batch, heads, queries, keys) if with_options else Options()
    options.top_k = 7
    arrays = [bits_test.normal(rng, *shape) for shape in shapes]
    return sdpa_request(*arrays, options, OUTPUTS, per_head=True, types=types)


def ragged(data_type, lengths, keys=None):
    rng = np.random.default_rng(7)
    keys = lengths if keys is None else keys
    shapes = (1, 4, sum(lengths), 33), (1, 2, sum(keys), 33), (1, 2, sum(keys), 20)
    options = Options(
        causal="bottom_right",
        alibi_slopes=np.linspace(0.5, 0.1, 4),
        cumulative_query_lengths=[0, *np.cumsum(lengths)],
        cumulative_key_lengths=[0, *np.cumsum(keys)],
        top_k=5,
    )
    return sdpa_request(*(bits_test.normal(rng, *s) for s in shapes), options, OUTPUTS, types=(data_type,) * 3)


def layer(token_type, weight_type):
    rng = np.random.default_rng(8)
    sizes = {"query": (48, 48), "key": (24, 48), "value": (20, 48), "output": (50, 40)}
    tensors = {which: (bits_test.normal(rng, *s) / 8, bits_test.normal(rng, s[0])) for which, s in sizes.items()}
    tokens = to_tensor(bits_test.normal(rng, 2, 130, 48), data_type=token_type)
    request = pb.AttendRequest(embeddings=tokens, outputs=[*bits_test.ALL_OUTPUTS, TOP])
    request.layer.CopyFrom(to_layer(tensors, 4, 2, weight_type=weight_type))
    request.options.CopyFrom(to_options(Options(causal="bottom_right", top_k=9)))
    return request


def merging(parts):
    rng = np.random.default_rng(9)
    arrays = (bits_test.normal(rng, 2, 4, 40, 24) for _ in range(3))
    request = sdpa_request(*arrays, outputs=[OUTPUT, LOG_SUM_EXP])
    request.partials.output.CopyFrom(to_tensor(bits_test.normal(rng, parts, 2, 4, 40, 24)))
    request.partials.log_sum_exp.CopyFrom(to_tensor(3 * bits_test.normal(rng, parts, 2, 4, 40)))
    return request


def all_requests():
    requests = {
        f"{name} {' '.join(map(name_of, types))}": typed(name, types)
        for name in bits_test.SDPA_CASES
        for types in MIXTURES
    }
    for data_type in (F32, BF16, F64):
        requests[f"ragged {name_of(data_type)}"] = ragged(data_type, [3, 130, 0, 9, 257])
        requests[f"ragged decode {name_of(data_type)}"] = ragged(data_type, [1, 1, 0, 1], [1100, 3, 9, 77])
        requests[f"ragged of one long {name_of(data_type)}"] = ragged(data_type, [2, 700, 1])
    for types in ((F32, BF16), (BF16, BF16), (F16, F32), (F64, F64)):
        requests[f"layer {' '.join(map(name_of, types))}"] = layer(*types)
    return requests | {f"merging {parts}": merging(parts) for parts in (1, 5)}


class TypedBitsTest(unittest.TestCase):
    """All compare with one server of two threads."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server("--threads", "2")
        cls.addClassCleanup(cls.server.stop)
        cls.requests = all_requests()
        cls.expected = {name: bits_test.ask(cls.server, request) for name, request in cls.requests.items()}

    def check_server(self, *flags):
        with Server(*flags) as other:
            for name, request in self.requests.items():
                with self.subTest(name, flags=flags):
                    bits_test.assert_same(bits_test.ask(other, request), self.expected[name], name)

    def test_the_cases_are_no_trivial_ones(self):
        for name, arrays in self.expected.items():
            output = arrays["output"]
            self.assertTrue(np.isfinite(output).all() and output.any(), name)
            self.assertGreater(len(np.unique(output)), min(output.size / 2, 500), name)

    def test_any_number_of_threads(self):
        for threads in ("1", "4"):
            self.check_server("--threads", threads)

    def test_computed_on_the_polling_thread_or_not(self):
        self.check_server("--threads", "2", "--inline-flops", "0")
        self.check_server("--threads", "2", "--inline-flops", "1e12")

    def test_every_instruction_set_with_fused_multiply_add(self):
        sets = bits_test.instruction_sets()
        self.assertTrue(sets, "no instruction set with fused multiply-add: nothing to compare")
        for name in sets:
            self.check_server("--threads", "2", "--instruction-set", name)

    def test_single_precision_gives_the_bits_of_float32(self):
        """Widened by this test instead of the server: maps are the same, and outputs are those rounded once."""
        for name in bits_test.SDPA_CASES:
            for types in MIXTURES:
                if F64 in types:
                    continue
                key = f"{name} {' '.join(map(name_of, types))}"
                request = pb.ScaledDotProductAttentionRequest()
                request.CopyFrom(self.requests[key])
                for tensor in (request.query, request.key, request.value):
                    tensor.CopyFrom(to_tensor(from_tensor(tensor)))
                with self.subTest(key):
                    wide = bits_test.ask(self.server, request)
                    output = tensor_pb2.Tensor(
                        data_type=types[0], shape=wide["output"].shape, data=encode(wide["output"], types[0])
                    )
                    wide["output"] = from_tensor(output)
                    bits_test.assert_same(self.expected[key], wide, key)


if __name__ == "__main__":
    unittest.main()
