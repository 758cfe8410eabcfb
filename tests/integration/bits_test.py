"""The same request gives the same bits: for any thread count, in any batch, on every instruction set, in either form,
and under load."""

import concurrent.futures
import pathlib
import unittest

import numpy as np

from attend_testing.oracle import Options
from attend_testing.requests import sdpa_request, to_layer, to_options
from attend_testing.server import Server
from attend_testing.stubs import pb
from attend_testing.tensors import (
    KEY,
    LOG_SUM_EXP,
    OUTPUT,
    QUERY,
    SCORES,
    VALUE,
    WEIGHTS,
    assert_same_bits,
    from_tensor,
    tensors_of,
    to_tensor,
)

SDPA_OUTPUTS = (OUTPUT, WEIGHTS, LOG_SUM_EXP, SCORES)
ALL_OUTPUTS = (*SDPA_OUTPUTS, QUERY, KEY, VALUE)
FIELDS = ("output", "attention_weights", "log_sum_exp", "scores", "query", "key", "value")


def normal(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


def options_of(batch, heads, queries, keys):
    """Every option at once, so that each one's arithmetic is compared."""
    rng = np.random.default_rng(3)
    return Options(
        softcap=4.0,
        causal="bottom_right",
        left=max(keys - 5, 1),
        right=7,
        valid_lengths=[keys - b % keys for b in range(batch)],
        mask=rng.random((batch, 1, queries, keys)) < 0.8,
        bias=normal(rng, 1, heads, queries, keys),
        alibi_slopes=np.linspace(0.5, 0.01, heads),
        sinks=normal(rng, heads),
    )


# Name: (B, H, K, T, S, E, V, whether with options). Sizes around and beside the kernels' blocks.
SDPA_CASES = {
    "decode": (3, 4, 2, 1, 1100, 64, 64, False),
    "decode_odd": (2, 2, 2, 1, 37, 33, 17, True),
    "short": (3, 2, 1, 5, 5, 64, 64, False),
    "odd": (2, 2, 2, 61, 77, 13, 29, True),
    "long": (2, 2, 1, 130, 1025, 32, 32, False),
    "prefill": (2, 2, 2, 257, 257, 64, 64, True),
}


def sdpa_case(name, form="data", only=None, per_head=True):
    """The request; of batch entry `only` alone, without its batch axis, if given."""
    batch, heads, kv_heads, queries, keys, dim, value_dim, with_options = SDPA_CASES[name]
    rng = np.random.default_rng(list(SDPA_CASES).index(name))
    arrays = [
        normal(rng, batch, heads, queries, dim),
        normal(rng, batch, kv_heads, keys, dim),
        normal(rng, batch, kv_heads, keys, value_dim),
    ]
    options = options_of(batch, heads, queries, keys) if with_options else Options()
    if only is not None:
        arrays = [array[only] for array in arrays]
        if with_options:
            options.valid_lengths = options.valid_lengths[only : only + 1]
            options.mask = options.mask[only : only + 1]
    return sdpa_request(*arrays, options, SDPA_OUTPUTS, form, per_head)


# Name: (B, T, S or None, D, D', H, K, E, V, D_out).
LAYER_CASES = {
    "self": (3, 37, None, 48, 48, 4, 2, 12, 10, 50),
    "cross": (2, 9, 61, 40, 24, 2, 2, 16, 16, 40),
    "wide": (2, 130, None, 192, 192, 3, 3, 64, 64, 192),
}


def layer_case(name, form="data", only=None):
    batch, queries, keys, dim, context_dim, heads, kv_heads, head_dim, value_dim, out = LAYER_CASES[name]
    rng = np.random.default_rng(100 + list(LAYER_CASES).index(name))

    def tensor(array):
        return to_tensor(array if only is None else array[only], form)

    request = pb.AttendRequest(embeddings=tensor(normal(rng, batch, queries, dim)), outputs=ALL_OUTPUTS)
    if keys is not None:
        request.context.CopyFrom(tensor(normal(rng, batch, keys, context_dim)))
    sizes = {
        "query": (heads * head_dim, dim),
        "key": (kv_heads * head_dim, context_dim),
        "value": (kv_heads * value_dim, context_dim),
        "output": (out, heads * value_dim),
    }
    layer = {which: (normal(rng, *size) / np.float32(8), normal(rng, size[0])) for which, size in sizes.items()}
    request.layer.CopyFrom(to_layer(layer, heads, kv_heads, form))
    request.options.CopyFrom(to_options(Options(causal="bottom_right"), form, per_head=True))
    return request


def ask(server, request):
    """{field: array} of everything the server answers."""
    sdpa = isinstance(request, pb.ScaledDotProductAttentionRequest)
    answer = (server.stub.ScaledDotProductAttention if sdpa else server.stub.Attend)(request, timeout=120)
    return {name: from_tensor(tensor) for name, tensor in tensors_of(answer).items()}


def assert_same(actual, expected, what):
    assert actual.keys() == expected.keys(), what
    for name, array in expected.items():
        assert_same_bits(actual[name], array, f"{what} {name}")


def cpu_flags():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    return set(next(line for line in text.splitlines() if line.startswith(("flags", "Features"))).split())


def instruction_sets():
    """Those of this machine with fused multiply-add, as the flag names them."""
    needed = {"avx2": {"avx2", "fma"}, "avx512": {"avx512f", "avx512dq", "avx512bw", "avx512vl"}, "neon": {"asimd"}}
    return [name for name, features in needed.items() if features <= cpu_flags()]


class BitsTest(unittest.TestCase):
    """All compare with one server of two threads."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server("--threads", "2")
        cls.addClassCleanup(cls.server.stop)
        cls.requests = {name: sdpa_case(name) for name in SDPA_CASES}
        cls.requests |= {f"layer {name}": layer_case(name) for name in LAYER_CASES}
        cls.expected = {name: ask(cls.server, request) for name, request in cls.requests.items()}

    def check_server(self, *flags):
        with Server(*flags) as other:
            for name, request in self.requests.items():
                with self.subTest(name, flags=flags):
                    assert_same(ask(other, request), self.expected[name], name)

    def test_the_cases_are_no_trivial_ones(self):
        """Results differ between batch entries and are neither zero nor NaN, so that a mixed-up one would show."""
        for name, arrays in self.expected.items():
            output = arrays["output"]
            self.assertTrue(np.isfinite(output).all() and output.any(), name)
            self.assertFalse(np.array_equal(output[0], output[1]), name)

    def test_any_number_of_threads(self):
        for threads in ("1", "4"):
            self.check_server("--threads", threads)

    def test_computed_on_the_polling_thread_or_not(self):
        self.check_server("--threads", "2", "--inline-flops", "0")
        self.check_server("--threads", "2", "--inline-flops", "1e12")

    def test_every_instruction_set_with_fused_multiply_add(self):
        sets = instruction_sets()
        self.assertTrue(sets, "no instruction set with fused multiply-add: nothing to compare")
        for name in sets:
            with self.subTest(name):
                self.check_server("--threads", "2", "--instruction-set", name)

    def test_alone_as_in_a_batch(self):
        cases = [(sdpa_case, name, f"{name}") for name in SDPA_CASES]
        cases += [(layer_case, name, f"layer {name}") for name in LAYER_CASES]
        for make, name, whole in cases:
            for b in range(len(self.expected[whole]["output"])):
                with self.subTest(whole, b=b):
                    alone = ask(self.server, make(name, only=b))
                    assert_same(alone, {field: array[b] for field, array in self.expected[whole].items()}, whole)

    def test_values_as_data(self):
        for make, names, prefix in ((sdpa_case, SDPA_CASES, ""), (layer_case, LAYER_CASES, "layer ")):
            for name in names:
                with self.subTest(prefix + name):
                    assert_same(ask(self.server, make(name, form="values")), self.expected[prefix + name], name)

    def test_asked_for_alone_or_with_others(self):
        """The output must not depend on whether the weights are returned too, which takes another way."""
        for name, request in self.requests.items():
            for kind, field in zip(ALL_OUTPUTS, FIELDS, strict=True):
                if field not in self.expected[name]:
                    continue
                with self.subTest(name, field=field):
                    single = type(request)()
                    single.CopyFrom(request)
                    del single.outputs[:]
                    single.outputs.append(kind)
                    assert_same(ask(self.server, single), {field: self.expected[name][field]}, name)

    def test_under_load_from_eight_threads(self):
        names = list(self.requests) * 4

        def check(seed):
            for name in np.random.default_rng(seed).permutation(names):
                assert_same(ask(self.server, self.requests[name]), self.expected[name], name)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for result in [pool.submit(check, seed) for seed in range(8)]:
                result.result()


if __name__ == "__main__":
    unittest.main()
