"""Scalars in double, layouts and precision, against NumPy in float64 and among each other."""

import unittest

import grpc
import numpy as np

from attend_testing import layer_files, layer_oracle, oracle, safetensors, tolerance
from attend_testing.element_types import BF16, F16, F32, F64, rounded
from attend_testing.errors import call_failure
from attend_testing.layer_oracle import NamedLayer, Norm
from attend_testing.layers import header, upload, upload_failure
from attend_testing.oracle import Options
from attend_testing.requests import sdpa_request, to_options
from attend_testing.server import ServerTestCase
from attend_testing.stubs import layers_pb, pb
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

INVALID = grpc.StatusCode.INVALID_ARGUMENT
BHTE, BTHE = pb.TENSOR_LAYOUT_BHTE, pb.TENSOR_LAYOUT_BTHE
SCALE, SOFTCAP = 0.1, 1.3  # No float32 has them.


def arrays(seed=0, batch=2, heads=4, kv_heads=2, queries=7, keys=11, dim=6, value_dim=5):
    rng = np.random.default_rng(seed)
    shapes = (batch, heads, queries, dim), (batch, kv_heads, keys, dim), (batch, kv_heads, keys, value_dim)
    return [rng.standard_normal(shape) for shape in shapes]


class ScalarsTest(ServerTestCase):
    """`scale` and `softcap` are doubles; `float_scale` and `float_softcap` are what clients of version 0.1 send."""

    def ask(self, options, data_type=F64):
        request = sdpa_request(*arrays(), types=(data_type,) * 3)
        request.options.CopyFrom(options)
        return from_tensor(self.stub.ScaledDotProductAttention(request, timeout=60).output)

    def test_all_bits_of_a_double_count_in_float64(self):
        q, k, v = arrays()
        for options in (Options(scale=SCALE), Options(softcap=SOFTCAP), Options(scale=SCALE, softcap=SOFTCAP)):
            with self.subTest(options):
                output = self.ask(to_options(options))
                expected = oracle.attend(q, k, v, options, precision=np.longdouble).output
                assert_near(output, expected, tolerance.DOUBLE * np.abs(v).max(), "output")

    def test_a_float_of_version_01_is_taken_as_that_float(self):
        old = pb.AttentionOptions(float_scale=SCALE, float_softcap=SOFTCAP)
        same = pb.AttentionOptions(scale=float(np.float32(SCALE)), softcap=float(np.float32(SOFTCAP)))
        new = pb.AttentionOptions(scale=SCALE, softcap=SOFTCAP)
        assert_same_bits(self.ask(old), self.ask(same), "float64")
        self.assertFalse(np.array_equal(self.ask(old), self.ask(new)), "a float has fewer bits than a double")
        for data_type in (F32, F16, BF16):
            assert_same_bits(self.ask(old, data_type), self.ask(new, data_type), f"{data_type}: the arithmetic is float32")

    def test_both_given(self):
        both = pb.AttentionOptions(scale=SCALE, float_scale=SCALE, softcap=SOFTCAP, float_softcap=SOFTCAP)
        only = pb.AttentionOptions(scale=SCALE, softcap=SOFTCAP)
        assert_same_bits(self.ask(both), self.ask(only), "the float is the double in float32")
        for name in ("scale", "softcap"):
            with self.subTest(name):
                options = pb.AttentionOptions(**{name: 0.5, f"float_{name}": np.nextafter(np.float32(0.5), np.float32(1))})
                sdpa = sdpa_request(*arrays())
                attend = pb.AttendRequest(embeddings=to_tensor(np.ones((2, 3), np.float32)), options=options)
                sdpa.options.CopyFrom(options)
                for method, request in ((self.stub.ScaledDotProductAttention, sdpa), (self.stub.Attend, attend)):
                    failure = call_failure(method, request)
                    self.assertEqual((failure.code, failure.fields), (INVALID, [f"options.{name}"]))
                    self.assertIn(f"options.float_{name}", failure.message)

    def test_numbers_that_float32_does_not_have(self):
        """Beyond its range the arithmetic is exact, see docs/numerics.md."""
        q, k, v = (array.astype(np.float32) for array in arrays())
        for scale in (1e-300, -1e-42):
            options = Options(scale=scale)
            output = from_tensor(self.stub.ScaledDotProductAttention(sdpa_request(q, k, v, options), timeout=60).output)
            assert_near(output, oracle.attend(q, k, v, options).output, tolerance.attention(v), f"scale {scale}")


class PerHeadTest(ServerTestCase):
    def test_float64_slopes_and_sinks_belong_to_float64(self):
        q, k, v = arrays()
        options = Options(alibi_slopes=np.array([0.1, 0.2, 0.3, 0.7]), sinks=np.array([0.1, -1.7, 0.3, 2.2]))
        request = sdpa_request(q, k, v, types=(F64,) * 3)
        for name in ("alibi_slopes", "sinks"):
            getattr(request.options, name).CopyFrom(to_tensor(getattr(options, name), data_type=F64))
        expected = oracle.attend(q, k, v, options, precision=np.longdouble).output
        output = from_tensor(self.stub.ScaledDotProductAttention(request, timeout=60).output)
        assert_near(output, expected, tolerance.DOUBLE * np.abs(v).max(), "output")
        for tensor in (request.query, request.key, request.value):
            tensor.CopyFrom(to_tensor(from_tensor(tensor)))
        failure = call_failure(self.stub.ScaledDotProductAttention, request)
        self.assertEqual((failure.code, failure.fields), (INVALID, ["options.alibi_slopes.data_type"]))
        self.assertIn("send options.alibi_slopes as DATA_TYPE_FLOAT32", failure.message)


class LayoutTest(ServerTestCase):
    """[B, T, H, E] gives the bits of [B, H, T, E]."""

    EVERYTHING = Options(
        scale=0.25, softcap=4.0, causal="bottom_right", left=8, mask=np.random.default_rng(1).random((2, 4, 7, 11)) < 0.8,
        key_mask=np.random.default_rng(2).random((2, 11)) < 0.8, alibi_slopes=np.linspace(0.5, 0.1, 4), sinks=np.linspace(-1, 1, 4),
        top_k=3,
    )  # fmt: skip

    def ask(self, request):
        return self.stub.ScaledDotProductAttention(request, timeout=60)

    def requests(self, options, axes, data_type, form):
        """The same in both layouts; of fewer than 4 axes those of the first batch entry, and then of its first head."""
        query, key, value = (rounded(array.astype(np.float32), data_type) if data_type != F64 else array for array in arrays())
        inputs = [array[(0,) * (4 - axes)] for array in (query, key, value)]
        swapped = [np.ascontiguousarray(np.swapaxes(array, -3, -2)) if axes > 2 else array for array in inputs]
        both = []
        for layout, tensors in ((BHTE, inputs), (BTHE, swapped)):
            kinds = [OUTPUT, WEIGHTS, LOG_SUM_EXP, SCORES] + ([TOP] if options and options.top_k else [])
            request = sdpa_request(*tensors, options, kinds, form, per_head=True, types=(data_type,) * 3)
            request.layout = layout
            both.append(request)
        return both

    def test_each_number_of_axes_type_and_form(self):
        cases = [(4, self.EVERYTHING), (4, None), (3, Options(causal="top_left")), (2, Options(causal="top_left"))]
        for axes, options in cases:
            for data_type in (F32, F16, BF16, F64):
                for form in ("data", "values"):
                    with self.subTest(axes=axes, data_type=data_type, form=form, options=options is self.EVERYTHING):
                        one, other = (self.ask(request) for request in self.requests(options, axes, data_type, form))
                        for name, tensor in tensors_of(one).items():
                            got, expected = from_tensor(getattr(other, name)), from_tensor(tensor)
                            if name == "output" and axes > 2:
                                expected = np.ascontiguousarray(np.swapaxes(expected, -3, -2))
                            assert_same_bits(got, expected, name)

    def test_against_float64(self):
        request = self.requests(self.EVERYTHING, 4, F32, "data")[1]
        query, key, value = (from_tensor(t).transpose(0, 2, 1, 3) for t in (request.query, request.key, request.value))
        expected = oracle.attend(query, key, value, self.EVERYTHING)
        output = from_tensor(self.ask(request).output)
        assert_near(output, expected.output.transpose(0, 2, 1, 3), tolerance.attention(value), "output")

    def test_ragged(self):
        rng = np.random.default_rng(3)
        query, key, value = (rng.standard_normal((1, heads, 9, 5), np.float32) for heads in (4, 2, 2))
        options = Options(cumulative_query_lengths=[0, 4, 4, 9], cumulative_key_lengths=[0, 1, 3, 9], causal="bottom_right")
        one = from_tensor(self.ask(sdpa_request(query, key, value, options)).output)
        request = sdpa_request(*(np.ascontiguousarray(x.transpose(0, 2, 1, 3)) for x in (query, key, value)), options)
        request.layout = BTHE
        assert_same_bits(from_tensor(self.ask(request).output), np.ascontiguousarray(one.transpose(0, 2, 1, 3)), "output")

    def test_refusals_name_the_axes_of_the_layout(self):
        request = self.requests(None, 4, F32, "data")[1]

        def refused(change):
            changed = pb.ScaledDotProductAttentionRequest()
            changed.CopyFrom(request)
            change(changed)
            failure = call_failure(self.stub.ScaledDotProductAttention, changed)
            self.assertEqual(failure.code, INVALID)
            return failure.fields, failure.message

        def set_query(*shape):
            return lambda r: r.query.CopyFrom(to_tensor(np.ones(shape, np.float32)))

        fields, message = refused(set_query(2, 1, 7, 4, 6))
        self.assertEqual(fields, ["query.shape"])
        self.assertIn("[B, T, H, E]", message)
        fields, message = refused(set_query(2, 7, 3, 6))
        self.assertEqual(fields, ["key.shape"])
        self.assertIn("number of heads 2, but query.shape has 3", message)
        fields, message = refused(lambda r: r.value.CopyFrom(to_tensor(np.ones((2, 10, 2, 5), np.float32))))
        self.assertEqual(fields, ["value.shape"])
        self.assertIn("number of tokens 10", message)
        fields, message = refused(lambda r: setattr(r, "layout", 3))
        self.assertEqual(fields, ["layout"])
        self.assertIn("layout is 3", message)

        def add_partials(r):
            r.partials.output.CopyFrom(to_tensor(np.ones((1, 2, 7, 4, 5), np.float32)))
            r.partials.log_sum_exp.CopyFrom(to_tensor(np.ones((1, 2, 4, 7), np.float32)))

        self.assertEqual(refused(add_partials)[0], ["layout"])


class PrecisionTest(ServerTestCase):
    def test_fast_is_exact_where_there_is_nothing_faster(self):
        for data_type in (F32, F64):
            request = sdpa_request(*arrays(), types=(data_type,) * 3)
            expected = from_tensor(self.stub.ScaledDotProductAttention(request, timeout=60).output)
            for precision in (pb.PRECISION_EXACT, pb.PRECISION_FAST):
                request.options.precision = precision
                output = from_tensor(self.stub.ScaledDotProductAttention(request, timeout=60).output)
                assert_same_bits(output, expected, f"{data_type}, precision {precision}")

    def test_another_number_is_refused(self):
        request = sdpa_request(*arrays())
        request.options.precision = 3
        failure = call_failure(self.stub.ScaledDotProductAttention, request)
        self.assertEqual((failure.code, failure.fields), (INVALID, ["options.precision"]))
        self.assertIn("PRECISION_EXACT (1), PRECISION_FAST (2)", failure.message)


class LayerConfigTest(ServerTestCase):
    """What a layer's configuration has of all this, and what the server reports of it to clients of either version."""

    def setUp(self):
        self.layers = self.server.layers
        rng = np.random.default_rng(4)

        def linear(rows, columns):
            return rng.standard_normal((rows, columns)), None

        self.layer = NamedLayer(
            {"query": linear(8, 8), "key": linear(8, 8), "value": linear(8, 8), "output": linear(8, 8)},
            heads=2, kv_heads=2,
            query_norm=Norm(np.float32([1, 2, 3, 4]), epsilon=0.3), key_norm=Norm(np.float32([1, 2, 3, 4]), epsilon=0.3),
            options=Options(scale=SCALE, softcap=SOFTCAP),
        )  # fmt: skip
        self.tokens = rng.standard_normal((1, 5, 8))

    def upload(self, name, config, data_type):
        data = safetensors.dump(layer_files.tensors(self.layer, "llama", data_type))
        return upload(self.layers, name, data, config=config)

    def output(self, name, data_type, **options):
        request = pb.AttendRequest(embeddings=to_tensor(self.tokens, data_type=data_type), layer_name=name)
        request.options.CopyFrom(pb.AttentionOptions(**options))
        return from_tensor(self.stub.Attend(request, timeout=60).output)

    def config(self, **fields):
        return layers_pb.LayerConfig(num_heads=2, norm_kind=layers_pb.NORM_KIND_RMS, **fields)

    def test_doubles_and_floats(self):
        new = self.config(norm_epsilon=0.3, options=pb.AttentionOptions(scale=SCALE, softcap=SOFTCAP))
        old = self.config(float_norm_epsilon=0.3, options=pb.AttentionOptions(float_scale=SCALE, float_softcap=SOFTCAP))
        both = self.config()
        both.MergeFrom(old)
        both.MergeFrom(new)
        wide = self.config(
            norm_epsilon=float(np.float32(0.3)),
            options=pb.AttentionOptions(scale=float(np.float32(SCALE)), softcap=float(np.float32(SOFTCAP))),
        )
        for data_type in (F32, F64):
            outputs = {}
            for name, config in (("new", new), ("old", old), ("both", both), ("wide", wide)):
                got = self.upload(f"options/{data_type}/{name}", config, data_type).config
                outputs[name] = self.output(f"options/{data_type}/{name}", data_type)
                self.assertEqual(got.float_norm_epsilon, np.float32(0.3))
                self.assertEqual((got.options.float_scale, got.options.float_softcap), (np.float32(SCALE), np.float32(SOFTCAP)))
                exact = name in ("new", "both")
                self.assertEqual(got.norm_epsilon, 0.3 if exact else np.float32(0.3))
                self.assertEqual(got.options.scale, SCALE if exact else np.float32(SCALE))
                again = self.upload(f"options/{data_type}/{name}/again", got, data_type).config
                self.assertEqual(again, got, "what a server reports can be sent")
            with self.subTest(data_type=data_type):
                assert_same_bits(outputs["both"], outputs["new"], "both")
                assert_same_bits(outputs["wide"], outputs["old"], "old")
                if data_type == F32:
                    assert_same_bits(outputs["old"], outputs["new"], "the arithmetic is float32")
                else:
                    expected = layer_oracle.attend(self.layer, self.tokens).output
                    assert_near(outputs["new"], expected, 1e-12 * np.abs(expected).max(), "new")
                    self.assertFalse(np.array_equal(outputs["old"], outputs["new"]))

    def test_defaults_are_reported_to_both(self):
        got = self.upload("options/defaults", self.config(), F32).config
        self.assertEqual((got.norm_epsilon, got.float_norm_epsilon), (1e-6, np.float32(1e-6)))
        self.assertEqual((got.options.scale, got.options.float_scale), (0.5, 0.5))
        self.assertFalse(got.options.HasField("softcap") or got.options.HasField("float_softcap"))

    def test_both_that_differ_are_refused(self):
        cases = {
            "norm_epsilon": self.config(norm_epsilon=0.5, float_norm_epsilon=0.25),
            "options.scale": self.config(options=pb.AttentionOptions(scale=0.5, float_scale=0.25)),
            "options.softcap": self.config(options=pb.AttentionOptions(softcap=0.5, float_softcap=0.25)),
        }
        data = safetensors.dump(layer_files.tensors(self.layer, "llama", F32))
        for name, config in cases.items():
            with self.subTest(name):
                requests = [header("options/differ", config=config), layers_pb.CreateLayerRequest(chunk=data)]
                failure = upload_failure(self.layers, requests)
                self.assertEqual((failure.code, failure.fields), (INVALID, [f"header.config.{name}"]))
                old = ".float_".join(["config", name]) if "." not in name else f"config.{name.replace('.', '.float_')}"
                self.assertIn(old, failure.message)

    def test_what_a_request_says_goes_before_the_float_of_a_layer(self):
        old = self.config(float_norm_epsilon=0.3, options=pb.AttentionOptions(float_scale=SCALE, float_softcap=SOFTCAP))
        self.upload("options/before", old, F64)
        layer = NamedLayer(**(vars(self.layer) | {"options": Options(scale=0.7, softcap=float(np.float32(SOFTCAP)))}))
        for norm in (layer.query_norm, layer.key_norm):
            norm.epsilon = float(np.float32(0.3))
        expected = layer_oracle.attend(layer, self.tokens).output
        assert_near(self.output("options/before", F64, scale=0.7), expected, 1e-12 * np.abs(expected).max(), "scale")

    def test_precision_and_per_head_numbers_in_float64(self):
        slopes, sinks = np.array([0.1, 0.7]), np.array([0.1, -0.7])
        options = pb.AttentionOptions(
            precision=pb.PRECISION_FAST,
            alibi_slopes=to_tensor(slopes, data_type=F64),
            sinks=to_tensor(sinks, data_type=F64),
        )
        config = self.config(norm_epsilon=0.3, options=options)
        got = self.upload("options/per-head", config, F64)
        self.assertEqual(got.config.options.precision, pb.PRECISION_FAST)
        self.assertTrue(got.has_alibi_slopes and got.has_sinks)
        layer = NamedLayer(**(vars(self.layer) | {"options": Options(alibi_slopes=slopes, sinks=sinks)}))
        expected = layer_oracle.attend(layer, self.tokens).output
        output = self.output("options/per-head", F64)
        assert_near(output, expected, 1e-12 * np.abs(expected).max(), "output")
        assert_same_bits(self.output("options/per-head", F64, precision=pb.PRECISION_EXACT), output, "a request's precision")
        data = safetensors.dump(layer_files.tensors(self.layer, "llama", F32))
        for field, changed in (
            ("alibi_slopes.data_type", config),
            ("precision", self.config(options=pb.AttentionOptions(precision=4))),
            ("key_mask", self.config(options=pb.AttentionOptions(key_mask=to_tensor(np.ones(5, bool))))),
        ):
            failure = upload_failure(self.layers, [header("options/no", config=changed), layers_pb.CreateLayerRequest(chunk=data)])
            self.assertEqual((failure.code, failure.fields), (INVALID, [f"header.config.options.{field}"]))


if __name__ == "__main__":
    unittest.main()
