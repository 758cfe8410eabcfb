"""PyTorch in float64 against a real attend-server, on random problems: shapes, masks, scales, groups of heads, layers.

PyTorch's plain ("math") path computes the expected results, and torch.nn.MultiheadAttention those of whole layers. The
problems are the same in every run: a failure names its seed.

    make test-vectors

It is no part of `make test`, because it fetches packages: scripts/vectors-venv.sh installs them into build/venv.
"""

import unittest

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from attend_testing.element_types import F32, F64, rounded
from attend_testing.server import Server
from attend_testing.stubs import pb
from attend_testing.tensors import assert_near, from_tensor, to_linear, to_tensor

SDPA_PROBLEMS = 120
LAYER_PROBLEMS = 40


def choose(rng, *values):
    return values[rng.integers(len(values))]


def double(array):
    return torch.from_numpy(np.array(array, np.float64))


class SdpaProblem:
    """One random scaled dot-product attention: the request, and what PyTorch says. `data_type` is F32 or F64."""

    def __init__(self, seed, data_type=F32):
        self.data_type = data_type
        rng = np.random.default_rng(seed)
        self.batch, self.kv_heads, self.group = rng.integers(1, 4), rng.integers(1, 4), choose(rng, 1, 1, 2, 5)
        self.queries, self.keys = choose(rng, 1, 2, 7, 33, 130, 257), choose(rng, 1, 3, 16, 65, 200, 513)
        head_dim, value_dim = choose(rng, 1, 5, 16, 64, 80, 128), choose(rng, 1, 7, 64, 96, 128)
        size = choose(rng, 0.1, 1.0, 4.0)

        def normal(heads, length, dim):
            return rounded(size * rng.standard_normal((self.batch, heads, length, dim)), data_type)

        self.query = normal(self.kv_heads * self.group, self.queries, head_dim)
        self.key = normal(self.kv_heads, self.keys, head_dim)
        self.value = normal(self.kv_heads, self.keys, value_dim)
        self.scale = choose(rng, None, np.float32(0.0), np.float32(-0.25), np.float32(rng.uniform(0.01, 1)))
        self.masking = choose(rng, "none", "top_left", "bottom_right", "bool", "float", "bool_2d")
        self.mask = self._mask(rng)

    def _mask(self, rng):
        """Of four axes, some of them 1; or of two. Some rows see no key at all."""
        if self.masking == "bool_2d":
            return rng.random((self.queries, self.keys)) < choose(rng, 0.02, 0.5, 0.98)
        full = (self.batch, self.kv_heads * self.group, self.queries, self.keys)
        shape = tuple(choose(rng, 1, axis) for axis in full)
        if self.masking == "bool":
            return rng.random(shape) < choose(rng, 0.02, 0.5, 0.98)
        return rounded(3 * rng.standard_normal(shape), self.data_type) if self.masking == "float" else None

    def request(self):
        outputs = [pb.OUTPUT_KIND_OUTPUT, pb.OUTPUT_KIND_ATTENTION_WEIGHTS]
        request = pb.ScaledDotProductAttentionRequest(
            query=to_tensor(self.query, data_type=self.data_type),
            key=to_tensor(self.key, data_type=self.data_type),
            value=to_tensor(self.value, data_type=self.data_type),
            outputs=outputs,
        )
        options = request.options
        options.attention_weights_form = pb.ATTENTION_WEIGHTS_FORM_PER_HEAD
        if self.scale is not None:
            options.scale = self.scale
        if self.masking == "top_left":
            options.causal = pb.CAUSAL_MODE_TOP_LEFT
        elif self.masking == "bottom_right":
            options.causal = pb.CAUSAL_MODE_BOTTOM_RIGHT
        elif self.mask is not None:
            if self.masking == "float":
                options.bias.CopyFrom(to_tensor(self.mask, data_type=self.data_type))
            else:
                options.mask.CopyFrom(to_tensor(self.mask))
        return request

    def expected(self, value):
        """PyTorch's result with the given value [B, K, S, *], which is repeated for each head of a group."""
        key, value = (double(np.repeat(x, self.group, axis=1)) for x in (self.key, value))
        arguments = {"scale": None if self.scale is None else float(self.scale)}
        if self.masking == "top_left":
            arguments["is_causal"] = True
        elif self.masking == "bottom_right":
            seen = np.tri(self.queries, self.keys, self.keys - self.queries, dtype=bool)
            arguments["attn_mask"] = torch.from_numpy(seen)
        elif self.mask is not None:
            arguments["attn_mask"] = double(self.mask) if self.masking == "float" else torch.from_numpy(self.mask)
        with sdpa_kernel(SDPBackend.MATH):
            return scaled_dot_product_attention(double(self.query), key, value, **arguments).numpy()

    def relative_tolerance(self):
        """The contract's 2e-6, and what scores beyond it carry: one of size s is rounded by up to 2^-24 s in float32.

        In float64 the contract says 1e-12, and PyTorch rounds no less; what scores carry is below that.

        That error of a score is a relative error of its weight; the factor is for the roundings of the sum behind it.
        """
        if self.data_type == F64:
            return 1e-12
        scale = self.query.shape[-1] ** -0.5 if self.scale is None else float(self.scale)
        key = np.repeat(self.key, self.group, axis=1)
        largest = np.abs(np.matmul(self.query, key.transpose(0, 1, 3, 2))).max() * abs(scale)
        return 2e-6 + 2 * 2.0**-24 * largest

    def expected_weights(self):
        """What comes out for the rows of the identity as values."""
        identity = np.broadcast_to(np.eye(self.keys), (self.batch, self.kv_heads, self.keys, self.keys))
        return self.expected(identity)


class LayerProblem:
    """One random torch.nn.MultiheadAttention, with its biases, masks and padding."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.batch, self.heads = int(rng.integers(1, 4)), choose(rng, 1, 2, 4, 7)
        self.queries, self.keys = choose(rng, 1, 5, 40, 129), choose(rng, 1, 6, 31, 130)
        self.self_attention = bool(rng.integers(2))
        if self.self_attention:
            self.keys = self.queries
        dim = self.heads * choose(rng, 4, 9, 16, 32)
        own = self.self_attention or rng.integers(2)
        context_dim = dim if own else int(rng.integers(1, 50))
        self.module = torch.nn.MultiheadAttention(
            dim, self.heads, bias=bool(rng.integers(2)), batch_first=True, kdim=context_dim, vdim=context_dim
        ).eval()
        for parameter in self.module.parameters():  # Biases start as zeros.
            torch.nn.init.normal_(parameter, std=dim**-0.5)
        self.embeddings = rng.standard_normal((self.batch, self.queries, dim)).astype(np.float32)
        self.context = self.embeddings
        if not self.self_attention:
            self.context = rng.standard_normal((self.batch, self.keys, context_dim)).astype(np.float32)
        self.hidden = rng.random((self.queries, self.keys)) < 0.3 if rng.integers(2) else None
        if self.hidden is not None:
            self.hidden[:, 0] = False  # A row without any key is NaN in this module.
        self.lengths = rng.integers(1, self.keys + 1, self.batch) if rng.integers(2) else None
        self.per_head = bool(rng.integers(2))

    def projections(self):
        """{name: (weight, bias or None)}, whether the module holds query, key and value as one matrix or three."""
        module = self.module
        weights = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
        if module.in_proj_weight is not None:
            weights = module.in_proj_weight.chunk(3)
        biases = [None] * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
        pairs = [*zip(weights, biases, strict=True), (module.out_proj.weight, module.out_proj.bias)]
        arrays = [tuple(x if x is None else x.detach().numpy() for x in pair) for pair in pairs]
        return dict(zip(("query", "key", "value", "output"), arrays, strict=True))

    def request(self):
        outputs = [pb.OUTPUT_KIND_OUTPUT, pb.OUTPUT_KIND_ATTENTION_WEIGHTS]
        request = pb.AttendRequest(embeddings=to_tensor(self.embeddings), outputs=outputs)
        if not self.self_attention:
            request.context.CopyFrom(to_tensor(self.context))
        request.layer.num_heads = self.heads
        for name, (weight, bias) in self.projections().items():
            getattr(request.layer, f"{name}_projection").CopyFrom(to_linear(weight, bias))
        if self.hidden is not None:
            request.options.mask.CopyFrom(to_tensor(~self.hidden))
        if self.lengths is not None:
            request.options.valid_lengths.extend(int(length) for length in self.lengths)
        if self.per_head:
            request.options.attention_weights_form = pb.ATTENTION_WEIGHTS_FORM_PER_HEAD
        return request

    def expected(self):
        """(output [B, T, D], weights [B, T, S] or [B, H, T, S]) in float64."""
        padding = None
        if self.lengths is not None:
            padding = torch.from_numpy(np.arange(self.keys)[None, :] >= self.lengths[:, None])
        module = self.module.double()
        with torch.no_grad():
            output, weights = module(
                double(self.embeddings), double(self.context), double(self.context), key_padding_mask=padding,
                attn_mask=None if self.hidden is None else torch.from_numpy(self.hidden),
                need_weights=True, average_attn_weights=not self.per_head,
            )
        return output.numpy(), weights.numpy()


class TorchRandomTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        server = Server("--threads", "2")
        cls.addClassCleanup(server.stop)
        cls.stub = server.stub

    def check_attention(self, data_type, absolute):
        for seed in range(SDPA_PROBLEMS):
            problem = SdpaProblem(seed, data_type)
            with self.subTest(seed=seed, masking=problem.masking):
                response = self.stub.ScaledDotProductAttention(problem.request(), timeout=60)
                relative, largest = problem.relative_tolerance(), np.abs(problem.value).max()
                output, weights = from_tensor(response.output), from_tensor(response.attention_weights)
                assert_near(output, problem.expected(problem.value), relative * largest + absolute, "output")
                assert_near(weights, problem.expected_weights(), relative + absolute, "weights")

    def test_attention_is_what_torch_computes_in_float64(self):
        self.check_attention(F32, 1e-6)

    def test_attention_in_float64_is_what_torch_computes(self):
        self.check_attention(F64, 0)

    def test_a_layer_is_what_multihead_attention_computes_in_float64(self):
        for seed in range(LAYER_PROBLEMS):
            problem = LayerProblem(seed)
            with self.subTest(seed=seed):
                response = self.stub.Attend(problem.request(), timeout=60)
                output, weights = problem.expected()
                # Both projections add their roundings to attention's: with values of about 1 all stay below these.
                assert_near(from_tensor(response.output), output, 1e-5, "output")
                assert_near(from_tensor(response.attention_weights), weights, 1e-5, "weights")


if __name__ == "__main__":
    unittest.main()
