"""What the Python package refuses before anything is sent. Needs no server."""

import unittest
import warnings
from fractions import Fraction

import attend
import numpy as np
from attend import _layer_flows

from attend_testing.wire_messages import normal, sent, tensor


class RefusalTest(unittest.TestCase):
    def refused(self, error, text, *arguments, **options):
        with self.assertRaisesRegex(error, text):
            attend.requests.sdpa(*(arguments or (normal(3, 8),) * 3), **options)

    def test_types_that_would_have_to_be_converted(self):
        self.refused(TypeError, "query has the type int64", np.ones((3, 8), int), normal(3, 8), normal(3, 8))
        self.refused(TypeError, "value has the type complex64", normal(3, 8), normal(3, 8), normal(3, 8).astype(complex).astype("c8"))
        self.refused(TypeError, "mask has the type int64.*true is visible", mask=np.ones((3, 3), int))
        self.refused(TypeError, "key_mask has the type float32", key_mask=normal(3))
        self.refused(TypeError, "valid_lengths", valid_lengths=[2.5])

    def test_what_is_empty_is_not_taken_for_what_is_not_given(self):
        x = normal(3, 8)
        for name in ("valid_lengths", "cumulative_query_lengths", "cumulative_key_lengths"):
            for empty in ([], (), np.zeros(0, int)):
                self.refused(ValueError, f"{name} is empty", **{name: empty})
        self.refused(ValueError, "outputs is empty", outputs=[])
        sent(attend.requests.sdpa(x, x, x, outputs=[], top_k=1))
        for name, arguments in (
            ("layer", {"layer": ""}),
            ("layer_etag", {"layer": "a", "layer_etag": ""}),
            ("position_offset", {"layer": "a", "position_offset": []}),
        ):
            with self.subTest(name), self.assertRaisesRegex(ValueError, f"^{name} is empty"):
                attend.requests.attend(x, **arguments)

    def test_numbers_of_heads_that_are_none(self):
        x = normal(3, 8)
        weights = {f"{name}.weight": x for name in ("query", "key", "value")}
        for name in ("num_heads", "num_kv_heads"):
            for value, error in ((0, ValueError), (-1, ValueError), (2.5, TypeError), ("2", TypeError)):
                with self.subTest(name, value=value), self.assertRaisesRegex(error, f"^{name} is "):
                    attend.requests.attend(x, layer=weights, **{name: value})

    def test_integers_that_the_protocol_would_cut(self):
        x = normal(3, 8)
        weights = {f"{name}.weight": x for name in ("query", "key", "value")}
        for name, value in (
            ("sliding_window_left", 2**64), ("sliding_window_right", 2**63), ("sliding_window_left", -(2**63) - 1),
            ("valid_lengths", [2**64 + 3]), ("valid_lengths", np.array([3, 2**64 - 1], np.uint64)),
            ("cumulative_query_lengths", [0, 2**64 + 3]), ("top_k", 2**32 + 5), ("top_k", 2**31),
        ):  # fmt: skip
            with self.subTest(name, value=value):
                self.refused(ValueError, f"^{name}: -?[0-9]+ is beyond the integers that the protocol has for it", **{name: value})
        for name, arguments in (
            ("position_offset", {"layer": "a", "position_offset": 2**64}),
            ("position_offset", {"layer": "a", "position_offset": [0, 2**64 + 1]}),
            ("num_heads", {"layer": weights, "num_heads": 2**32 + 4}),
            ("num_kv_heads", {"layer": weights, "num_kv_heads": 2**31}),
        ):
            with self.subTest(arguments), self.assertRaisesRegex(ValueError, f"^{name}\\b"):
                attend.requests.attend(x, **arguments)
        with self.assertRaisesRegex(ValueError, "^num_heads is 4294967300; expected an integer from 1 to 2147483647"):
            _layer_flows.make_config(None, 2**32 + 4, None)

    def test_the_last_integers_of_the_protocol_are_sent(self):
        x = normal(3, 8)
        for name, value in (("sliding_window_left", 2**63 - 1), ("sliding_window_right", -(2**63)), ("top_k", 2**31 - 1)):
            self.assertEqual(getattr(sent(attend.requests.sdpa(x, x, x, **{name: value})).options, name), value)
        offsets = [2**63 - 1, -(2**63)]
        self.assertEqual(list(sent(attend.requests.attend(x, layer="a", position_offset=offsets)).position_offsets), offsets)

    def test_windows_of_numpys_integers_cost_what_others_do(self):
        x = normal(300, 8)
        for kind, size in ((np.int8, 100), (np.int64, 2**63 - 1)):
            plain, own = (
                attend.requests.sdpa(x, x, x, sliding_window_left=number, sliding_window_right=number) for number in (size, kind(size))
            )
            self.assertNotEqual(plain.cost, "")
            self.assertEqual(own.cost, plain.cost)

    def test_lists_of_what_are_no_numbers(self):
        for name, square, kind in (
            ("bias", [[True, False, True]] * 3, "bool"), ("bias", [["1", "2", "3"]] * 3, "str"), ("bias", [[None] * 3] * 3, "object"),
            ("bias", [[1j] * 3] * 3, "complex128"), ("sinks", [True], "bool"), ("alibi_slopes", ["1"], "str"),
        ):  # fmt: skip
            for given in (square, np.array(square)):
                with self.subTest(name, kind=kind):
                    self.refused(TypeError, f"^{name} has the type {kind}.*; expected float32 or ", **{name: given})

    def test_numbers_of_lists_that_the_type_does_not_have(self):
        x = {name: normal(3, 8).astype(name) for name in ("float16", "float32", "float64")}
        for type_name, name, value in (
            ("float32", "bias", [[0, 1e39, 0]] * 3), ("float32", "sinks", [-1e39]), ("float16", "alibi_slopes", (1e39,)),
            ("float64", "sinks", [np.longdouble("1e400")]), ("float32", "sinks", [np.array(1e39)]),
        ):  # fmt: skip
            with self.subTest(type_name, name=name), warnings.catch_warnings():
                warnings.simplefilter("error")
                self.refused(ValueError, rf"^{name} has the number -?1(\.0)?e\+\d+, which is beyond", *(x[type_name],) * 3, **{name: value})
        infinite = sent(attend.requests.sdpa(*(x["float32"],) * 3, bias=[[0, float("-inf"), 3]] * 3, sinks=[7])).options
        self.assertEqual(infinite.bias, tensor(np.array([[0, float("-inf"), 3]] * 3, np.float32)))
        self.assertEqual(infinite.sinks, tensor(np.array([7], np.float32)))
        large = sent(attend.requests.sdpa(*(x["float32"],) * 3, bias=[[0, -(10**30), Fraction(1, 2)]] * 3)).options
        self.assertEqual(large.bias, tensor(np.array([[0, -1e30, 0.5]] * 3, np.float32)))
        self.refused(ValueError, "^sinks has a number beyond those of float64", sinks=[10**400])
        self.assertEqual(sent(attend.requests.sdpa(*(x["float64"],) * 3, sinks=[1e39])).options.sinks.data, np.array([1e39]).tobytes())

    def test_options_that_are_no_numbers_and_no_booleans(self):
        for name, value, expected in (
            ("top_k", 2.0, "an integer"), ("top_k", True, "an integer"), ("sliding_window_left", "3", "an integer"),
            ("sliding_window_right", np.bool_(True), "an integer"), ("softcap", "x", "a real number"), ("scale", "0.5", "a real number"),
            ("scale", True, "a real number"), ("scale", np.bool_(True), "a real number"), ("scale", 1j, "a real number"),
            ("scale", np.array(True), "a real number"), ("scale", [0.5], "a real number"), ("per_head", "false", "a boolean"),
            ("per_head", 1, "a boolean"),
        ):  # fmt: skip
            with self.subTest(name, value=value):
                self.refused(TypeError, f"^{name} is .*; expected {expected}$", **{name: value})
        self.refused(ValueError, "^scale is 1000*, which is beyond", scale=10**400)
        self.refused(TypeError, r"^valid_lengths is \[True\]; expected integers$", valid_lengths=[True])
        for name in ("causal", "precision"):
            self.refused(ValueError, rf"^{name} is \['x'\]; expected '", **{name: ["x"]})
        x = normal(3, 8)
        for name, arguments in (
            ("position_offset", {"layer": "a", "position_offset": 2.5}),
            ("num_heads", {"layer": {f"{name}.weight": x for name in ("query", "key", "value")}, "num_heads": True}),
        ):
            with self.subTest(name), self.assertRaisesRegex(TypeError, f"^{name} is .*; expected an integer$"):
                attend.requests.attend(x, **arguments)

    def test_numbers_and_booleans_of_numpy(self):
        x = normal(3, 8)
        true, false = np.bool_(True), np.bool_(False)
        for given, plain in (
            ({"causal": true, "per_head": true}, {"causal": True, "per_head": True}),
            ({"causal": false, "per_head": false}, {"causal": False, "per_head": False}),
            ({"scale": np.float32(0.5), "softcap": np.int64(3)}, {"scale": 0.5, "softcap": 3}),
            ({"scale": np.array(0.5), "top_k": np.array(2), "causal": np.array(True)}, {"scale": 0.5, "top_k": 2, "causal": True}),
        ):
            with self.subTest(given):
                self.assertEqual(sent(attend.requests.sdpa(x, x, x, **given)), sent(attend.requests.sdpa(x, x, x, **plain)))
        with self.assertRaisesRegex(ValueError, "causal=True means two things"):
            attend.requests.sdpa(x[:2], x, x, causal=true)

    def test_masked_arrays(self):
        x = np.ma.array(normal(3, 8), mask=normal(3, 8) > 0)
        self.refused(TypeError, r"key is a masked array.*key.filled\(value\), or hide keys by key_mask", normal(3, 8), x, normal(3, 8))
        self.refused(TypeError, "bias is a masked array", bias=np.ma.zeros((3, 3), np.float32))
        self.refused(TypeError, "mask is a masked array", mask=np.ma.ones((3, 3), bool))
        self.refused(TypeError, "sinks is a masked array", sinks=[np.ma.masked])
        with self.assertRaisesRegex(TypeError, "embeddings is a masked array"):
            attend.requests.attend([list(x[:2]), list(x[:2])])

    def test_names_that_are_none(self):
        self.refused(TypeError, "no option 'windw'", windw=3)
        self.refused(TypeError, "did you mean 'softcap'", soft_cap=3)
        self.refused(ValueError, "no output 'weights'; there are output, attention_weights", outputs=["weights"])
        self.refused(ValueError, "precision is 'quick'", precision="quick")
        self.refused(ValueError, "layout is 'bshd'", layout="bshd")

    def test_arguments_that_do_not_go_together(self):
        x = normal(3, 8)
        for text, arguments in (
            ("by its name", {"position_offset": 3}),
            ("by its name", {"layer_etag": "a", "layer": {"query.weight": x, "key.weight": x, "value.weight": x}}),
            ("by its weights", {"layer": "notebook", "num_heads": 2}),
            ("no key.weight", {"layer": {"query.weight": x}}),
            ("'gate.weight' is none", {"layer": {"gate.weight": x}}),
            ("3 is none", {"layer": {3: x}}),
            ("no value.weight", {"layer": {"query.weight": x, "key.weight": x, "value.weight": None}}),
            ("output.bias and no output.weight", {"layer": {"query.weight": x, "key.weight": x, "value.weight": x, "output.bias": x[0]}}),
        ):
            with self.subTest(arguments), self.assertRaisesRegex(ValueError, text):
                attend.requests.attend(x, **arguments)


if __name__ == "__main__":
    unittest.main()
