"""attend.torch against torch itself, in float64: 200 random attentions and 60 modules. Needs PyTorch (`make test-python`)."""

import unittest
import unittest.mock

import attend
import attend.torch
import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from attend_testing.server import Server
from attend_testing.tensors import assert_near

ATTENTIONS, MODULES = 200, 60
DTYPES = {torch.float32: 0.0, torch.float64: 0.0, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


class TorchTestCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        server = Server("--threads", "2")
        cls.addClassCleanup(server.stop)
        client = attend.Client(server.address)
        attend.set_default_client(client)
        cls.addClassCleanup(client.close)
        cls.addClassCleanup(attend.set_default_client, None)


class Attention:
    """One random call: its arguments, and the axes that they have."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)

        def choose(*values):
            return values[rng.integers(len(values))]

        self.dtype = choose(*DTYPES)
        queries, keys = int(rng.choice([1, 2, 7, 33, 130])), int(rng.choice([1, 3, 16, 65, 200]))
        head_dim, value_dim = int(rng.choice([1, 5, 16, 64])), int(rng.choice([1, 7, 64]))
        kv_heads, group = int(rng.integers(1, 4)), choose(1, 1, 2, 5)
        lead = choose((), (kv_heads,), (2, kv_heads), (2, 3, kv_heads)) if group == 1 else choose((kv_heads,), (3, kv_heads))
        size = choose(0.1, 1.0, 3.0)

        def normal(*shape):
            return (size * torch.randn(shape)).to(self.dtype)

        q_lead = (*lead[:-1], lead[-1] * group) if lead else ()
        self.query, self.key, self.value = normal(*q_lead, queries, head_dim), normal(*lead, keys, head_dim), normal(*lead, keys, value_dim)
        if choose(False, True):  # As models make them: a view of [..., T, H, E].
            self.query = self.query.transpose(-1, -2).contiguous().transpose(-1, -2)
        self.options = {"enable_gqa": True} if group > 1 else {}
        if choose(False, True):
            self.options["scale"] = choose(0.0, -0.3, float(rng.uniform(0.01, 1)))
        masking = choose("none", "causal", "bool", "float")
        if masking == "causal":
            self.options["is_causal"] = True
        elif masking != "none":
            axes = [choose(1, axis) for axis in (*q_lead, queries, keys)][choose(0, max(0, len(q_lead) - 1)) :]
            axes = axes if len(axes) > 1 else [queries, keys]
            mask = torch.rand(axes) < choose(0.05, 0.5, 0.95) if masking == "bool" else normal(*axes)
            self.options["attn_mask"] = mask

    def expected(self):
        inputs = [tensor.double() for tensor in (self.query, self.key, self.value)]
        options = dict(self.options)
        if (mask := options.get("attn_mask")) is not None and mask.dtype != torch.bool:
            options["attn_mask"] = mask.double()
        with sdpa_kernel(SDPBackend.MATH):
            return scaled_dot_product_attention(*inputs, **options)

    def tolerance(self, expected):
        """The contract of the protocol, what large scores add to it, and the rounding of the result."""
        largest_value = self.value.double().abs().max().item()
        scale = abs(self.options.get("scale", self.query.shape[-1] ** -0.5))
        largest_score = scale * (self.query.double().norm(dim=-1).max() * self.key.double().norm(dim=-1).max()).item()
        if self.dtype == torch.float64:
            return 1e-12 * max(largest_value, 1)
        within = 2e-6 * largest_value + 1e-6 + 2.0**-23 * largest_score * largest_value
        return within + DTYPES[self.dtype] * np.abs(expected.numpy())


class AttentionTest(TorchTestCase):
    def test_random_attentions_are_what_torch_computes_in_float64(self):
        seen = set()
        for seed in range(ATTENTIONS):
            attention = Attention(seed)
            with self.subTest(seed=seed, dtype=attention.dtype, options=sorted(attention.options)):
                output = attend.torch.scaled_dot_product_attention(
                    attention.query, attention.key, attention.value, **attention.options
                )
                expected = attention.expected()
                self.assertEqual(output.dtype, attention.dtype)
                assert_near(output.double().numpy(), expected.numpy(), attention.tolerance(expected), "output")
                seen |= {(attention.dtype, option) for option in attention.options}
        self.assertEqual(len(seen), len(DTYPES) * 4, "every option was drawn with every type")

    def test_what_would_change_the_result_is_refused(self):
        x = torch.randn(2, 3, 4)
        for text, call in (
            ("dropout_p is 0.1", lambda: attend.torch.scaled_dot_product_attention(x, x, x, dropout_p=0.1)),
            ("exclude each other", lambda: attend.torch.scaled_dot_product_attention(x, x, x, x[0], 0.0, True)),
            ("requires a gradient", lambda: attend.torch.scaled_dot_product_attention(x.clone().requires_grad_(), x, x)),
            ("device meta", lambda: attend.torch.scaled_dot_product_attention(x.to("meta"), x, x)),
            ("two axes", lambda: attend.torch.scaled_dot_product_attention(x[0, 0], x, x)),
            ("dropout_p is -0.1", lambda: attend.torch.scaled_dot_product_attention(x, x, x, dropout_p=-0.1)),
        ):
            with self.subTest(text), self.assertRaisesRegex(ValueError, text):
                call()

    def test_leading_axes_that_do_not_go_together_are_refused(self):
        for query, key, value, options in (
            ((2, 3, 4), (3, 5, 4), (2, 5, 6), {}),
            ((2, 2, 3, 4), (3, 2, 5, 4), (3, 2, 5, 6), {}),
            ((0, 3, 4), (2, 5, 4), (2, 5, 6), {}),
            ((2, 4, 3, 4), (3, 2, 5, 4), (3, 2, 5, 6), {"enable_gqa": True}),
            ((4, 3, 4), (2, 5, 4), (4, 5, 6), {"enable_gqa": True}),  # torch repeats the keys alone.
        ):
            with self.subTest(query=query, key=key, value=value), self.assertRaises(ValueError) as raised:
                attend.torch.scaled_dot_product_attention(torch.ones(query), torch.ones(key), torch.ones(value), **options)
            self.assertIn(f"their shapes are {query}, {key}, {value}", str(raised.exception))

    def test_results_without_elements_or_keys_are_torchs(self):
        for query, key, value, options in (
            ((0, 2, 3, 4), (0, 2, 5, 4), (0, 2, 5, 6), {}),
            ((2, 0, 3, 4), (2, 0, 5, 4), (2, 0, 5, 6), {"is_causal": True}),
            ((2, 0, 4), (2, 5, 4), (2, 5, 6), {}),
            ((2, 3, 4), (2, 5, 4), (2, 5, 0), {}),
            ((2, 3, 4), (2, 0, 4), (2, 0, 6), {}),
            ((3, 4), (0, 4), (0, 6), {}),
            ((0, 3, 4), (1, 5, 4), (1, 5, 6), {}),
            ((0, 4, 3, 4), (0, 2, 5, 4), (0, 2, 5, 6), {"enable_gqa": True}),
            ((0, 2, 3, 4), (0, 2, 5, 4), (0, 2, 5, 6), {"attn_mask": torch.ones(0, 1, 3, 5)}),
        ):
            inputs = [torch.ones(shape, dtype=torch.bfloat16) for shape in (query, key, value)]
            options = {name: option.bfloat16() if name == "attn_mask" else option for name, option in options.items()}
            with self.subTest(query=query, key=key, value=value):
                expected = scaled_dot_product_attention(*inputs, **options)
                torch.testing.assert_close(attend.torch.scaled_dot_product_attention(*inputs, **options), expected, rtol=0, atol=0)
                with self.assertRaisesRegex(ValueError, "key requires a gradient"):
                    attend.torch.scaled_dot_product_attention(inputs[0], inputs[1].clone().requires_grad_(), inputs[2], **options)
        for key, value, sentence in (((1, 5, 7), (1, 5, 6), "one size"), ((1, 5, 4), (1, 9, 6), "one length")):
            with self.subTest(key=key, value=value), self.assertRaisesRegex(ValueError, sentence):
                attend.torch.scaled_dot_product_attention(torch.ones(0, 3, 4), torch.ones(key), torch.ones(value))
        with self.assertRaisesRegex(ValueError, "one type"):
            attend.torch.scaled_dot_product_attention(torch.ones(0, 3, 4), torch.ones(1, 5, 4).double(), torch.ones(1, 5, 6))
        with self.assertRaises(ValueError):  # A head of no columns, which torch takes.
            attend.torch.scaled_dot_product_attention(torch.ones(3, 0), torch.ones(5, 0), torch.ones(5, 6))

    def test_masks_that_torch_takes_beside_fewer_axes_are_taken(self):
        for query, masks in (((2, 3, 4), ((1, 1, 3, 3), (1, 2, 3, 3), (1, 1, 1, 3), (2, 3, 3))), ((3, 4), ((3,), (3, 3)))):
            x = torch.randn(*query)
            for shape in masks:
                with self.subTest(query=query, mask=shape):
                    mask = torch.randn(*shape)
                    expected = torch.nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)
                    actual = attend.torch.scaled_dot_product_attention(x, x, x, attn_mask=mask)
                    self.assertEqual(actual.shape, expected.reshape(query).shape)
                    torch.testing.assert_close(actual, expected.reshape(query), rtol=0, atol=1e-5)

    def test_masks_that_torch_refuses_are_refused(self):
        x = torch.randn(1, 2, 3, 4)
        ones = torch.ones
        for mask in (
            ones(3, 3, dtype=torch.int64), ones(3, 3, dtype=torch.uint8), ones(3, 3, dtype=torch.complex64), ones(3), ones(()), ones(4, 3),
            ones(5, 2, 3, 3), ones(1, 1, 2, 3, 3), ones(5, 3, 3), ones(5, 2, 3, 3, dtype=torch.bool),
        ):  # fmt: skip
            with self.subTest(dtype=mask.dtype, shape=mask.shape):
                with self.assertRaises((RuntimeError, IndexError)):
                    scaled_dot_product_attention(x, x, x, mask)
                with self.assertRaisesRegex(ValueError, "attn_mask has the"):
                    attend.torch.scaled_dot_product_attention(x, x, x, mask)


class ModuleTest(TorchTestCase):
    def module_and_inputs(self, seed):
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        heads = int(rng.choice([1, 2, 4]))
        dim, context_dim = heads * int(rng.choice([3, 16])), int(rng.integers(1, 30))
        batch, queries, keys = int(rng.integers(1, 4)), int(rng.choice([1, 5, 40])), int(rng.choice([2, 6, 31]))
        arguments = {
            "batch_first": bool(rng.integers(2)), "bias": bool(rng.integers(2)), "add_bias_kv": bool(rng.integers(2)),
            "add_zero_attn": bool(rng.integers(2)),
        }  # fmt: skip
        if rng.integers(2):
            arguments |= {"kdim": context_dim, "vdim": context_dim + 2}
        module = torch.nn.MultiheadAttention(dim, heads, **arguments).eval()
        for parameter in module.parameters():  # Biases start as zeros.
            torch.nn.init.normal_(parameter, std=dim**-0.5)
        ours = attend.torch.MultiheadAttention(dim, heads, **arguments).eval()
        ours.load_state_dict(module.state_dict())
        lead = (batch,) if rng.integers(4) else ()

        def tokens(count, size):
            x = torch.randn(*lead, count, size)
            return x if arguments["batch_first"] or not lead else x.transpose(0, 1)

        inputs = (tokens(queries, dim), tokens(keys, module.kdim), tokens(keys, module.vdim))
        options = {"need_weights": bool(rng.integers(4)), "average_attn_weights": bool(rng.integers(2))}
        if rng.integers(2):
            padding = torch.rand(*lead, keys) < 0.4
            padding[..., 0] = False  # A row without any key is NaN in torch's module.
            options["key_padding_mask"] = padding if rng.integers(2) else -3.0 * padding
        if rng.integers(2):
            axes = (queries, keys) if rng.integers(2) else (heads * (batch if lead else 1), queries, keys)
            hidden = torch.rand(axes) < 0.3
            hidden[..., 0] = False
            options["attn_mask"] = hidden if rng.integers(2) else torch.randn(axes)
        return module, ours, inputs, options

    def test_random_modules_are_what_torchs_compute_in_float64(self):
        for seed in range(MODULES):
            module, ours, inputs, options = self.module_and_inputs(seed)
            with self.subTest(seed=seed, options=options), torch.no_grad():
                output, weights = ours(*inputs, **options)
                wide = {name: mask.double() if getattr(mask, "dtype", None) == torch.float32 else mask for name, mask in options.items()}
                expected, expected_weights = module.double()(*(x.double() for x in inputs), **wide)
                # Both projections add their roundings to attention's: with values of about 1 all stay below this.
                assert_near(output.numpy(), expected.numpy(), 1e-5, "output")
                self.assertEqual(weights is None, expected_weights is None)
                if weights is not None:
                    assert_near(weights.numpy(), expected_weights.numpy(), 1e-5, "weights")

    def test_what_torch_refuses_is_refused(self):
        ones, integer = torch.ones, {"dtype": torch.int64}
        one, batch = torch.randn(3, 8), torch.randn(2, 3, 8)
        keys, batch_keys = torch.randn(5, 8), torch.randn(2, 5, 8)
        for text, inputs, options in (
            ("key_padding_mask has the type torch.uint8", (batch, batch_keys), {"key_padding_mask": ones(2, 5, dtype=torch.uint8)}),
            ("key_padding_mask has the type torch.int64", (batch, batch_keys), {"key_padding_mask": ones(2, 5, **integer)}),
            ("attn_mask has the type torch.int64", (batch, batch_keys), {"attn_mask": ones(3, 5, **integer)}),
            ("key_padding_mask has the type torch.int64", (one, keys), {"key_padding_mask": ones(5, **integer)}),
            (r"key_padding_mask has the shape \(1, 5\)", (batch, batch_keys), {"key_padding_mask": ones(1, 5)}),
            (r"key_padding_mask has the shape \(5,\)", (batch, batch_keys), {"key_padding_mask": ones(5, dtype=torch.bool)}),
            (r"key_padding_mask has the shape \(1, 5\)", (one, keys), {"key_padding_mask": ones(1, 5)}),
            (r"attn_mask has the shape \(1, 5\)", (batch, batch_keys), {"attn_mask": ones(1, 5)}),
            (r"attn_mask has the shape \(2, 3, 5\)", (batch, batch_keys), {"attn_mask": ones(2, 3, 5)}),
            (r"attn_mask has the shape \(2, 2, 3, 5\)", (batch, batch_keys), {"attn_mask": ones(2, 2, 3, 5)}),
            (r"attn_mask has the shape \(1, 3, 5\)", (one, keys), {"attn_mask": ones(1, 3, 5)}),
            ("3, 2 and 2 axes", (batch, keys), {}),
            ("2, 3 and 3 axes", (one, batch_keys), {}),
            ("4, 4 and 4 axes", (batch[None], batch_keys[None]), {}),
            ("batch sizes 2 and 1", (batch, batch_keys[:1]), {}),
            (r"key and value are \[8, 7, 7\]; the module's sizes are \[8, 8, 8\]", (batch, batch_keys[..., :7]), {}),
            (r"key and value are \[7, 8, 8\]", (one[:, :7], keys), {}),
        ):
            for first in (True, False):
                if not first and inputs[0].dim() == 3 == inputs[1].dim():
                    inputs = [x.transpose(0, 1) for x in inputs]
                modules = [kind(8, 2, batch_first=first).eval() for kind in (torch.nn.MultiheadAttention, attend.torch.MultiheadAttention)]
                with self.subTest(text, batch_first=first), torch.no_grad():
                    with self.assertRaises((AssertionError, RuntimeError, ValueError, IndexError)):
                        modules[0](inputs[0], inputs[1], inputs[1], **options, need_weights=False)
                    with self.assertRaisesRegex(ValueError, text):
                        modules[1](inputs[0], inputs[1], inputs[1], **options)
        with torch.no_grad(), self.assertRaisesRegex(ValueError, "of different tokens"):
            attend.torch.MultiheadAttention(8, 2)(one, keys, one)

    def test_the_layers_of_torchs_encoder_call_it(self):
        """In eval() and without gradients torch's layers have a fast path, which goes past their modules."""
        layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()
        layer.self_attn = attend.torch.MultiheadAttention(8, 2, batch_first=True).eval()
        calls = []

        def sdpa(*arguments, **options):
            calls.append(options)
            return attend.default_client().sdpa(*arguments, **options)

        layer.self_attn.client = unittest.mock.Mock(sdpa=sdpa)
        with torch.no_grad():
            layer(torch.randn(1, 3, 8))
            self.assertEqual(len(calls), 1)
            torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()(torch.randn(1, 3, 8))
            self.assertEqual(len(calls), 3)

    def test_dropout_is_refused_in_training_alone(self):
        module, x = attend.torch.MultiheadAttention(8, 2, dropout=0.5, batch_first=True), torch.randn(1, 3, 8)
        with torch.no_grad():
            with self.assertRaisesRegex(ValueError, "dropout is 0.5"):
                module(x, x, x)
            module.eval()(x, x, x)


if __name__ == "__main__":
    unittest.main()
