"""Layers of every common kind, loaded from checkpoints under every common naming, against float64 (layer_oracle.py).

Bounds are the contract's (docs/numerics.md; tolerance.py): 2e-6 max|value| + 1e-6 before an output projection, which
then carries that on; log-sum-exp within 1e-5.
"""

import dataclasses
import itertools
import json
import pathlib
import tempfile
import typing
import unittest

import grpc
import numpy as np

from attend_testing import layer_files, layer_oracle, safetensors, tolerance
from attend_testing.element_types import BF16, F16, F32, rounded, rounding
from attend_testing.errors import call_failure
from attend_testing.layer_oracle import LLAMA31, NamedLayer, Norm, Rotary
from attend_testing.layers import upload
from attend_testing.oracle import Options
from attend_testing.requests import to_options
from attend_testing.server import PATIENCE, Server
from attend_testing.stubs import layers_grpc, layers_pb, pb
from attend_testing.tensors import (
    KEY,
    LOG_SUM_EXP,
    OUTPUT,
    QUERY,
    SCORES,
    VALUE,
    WEIGHTS,
    assert_near,
    assert_same_bits,
    from_tensor,
    to_tensor,
)

OUTPUTS = (OUTPUT, WEIGHTS, LOG_SUM_EXP, QUERY, KEY, VALUE, SCORES)
CHUNK = 1000  # Bytes: an upload of several chunks.


def make(
    seed, d=24, heads=4, kv_heads=None, e=8, v=None, d_out=None, d_context=None, bias=False, output=True, data_type=F32, norm=None, **fields
):
    """A layer of random numbers that `data_type` holds. `norm` makes those of query and key: a function of (size, rng)."""
    rng, kv_heads, v = np.random.default_rng(seed), kv_heads or heads, v or e

    def linear(rows, columns):
        weight = rounded(rng.standard_normal((rows, columns)) / np.sqrt(columns), data_type)
        return weight, rounded(rng.standard_normal(rows) / 2, data_type) if bias else None

    projections = {
        "query": linear(heads * e, d),
        "key": linear(kv_heads * e, d_context or d),
        "value": linear(kv_heads * v, d_context or d),
    }
    if output:
        projections["output"] = linear(d_out or d, heads * v)
    if norm:
        fields |= {"query_norm": norm(heads, e, rng, data_type), "key_norm": norm(kv_heads, e, rng, data_type)}
    return NamedLayer(projections, heads, kv_heads, **fields)


def head_norm(kind="rms", bias=False, of_all_heads=False, **fields):
    def norm(heads, e, rng, data_type):
        size = heads * e if of_all_heads else e
        numbers = [rounded(rng.standard_normal(size) / 4, data_type) for _ in range(2)]
        return Norm(numbers[0] + (0 if fields.get("adds_one") else np.float32(1)), numbers[1] if bias else None, kind, **fields)

    def with_types(heads, e, rng, data_type):
        one = norm(heads, e, rng, data_type)
        return dataclasses.replace(one, weight=rounded(one.weight, data_type))

    return with_types


@dataclasses.dataclass
class Model:
    naming: str
    layer: NamedLayer
    data_type: int = F32
    prefix: str = ""
    d: int = 24
    d_context: int = 24


def model(naming, seed, prefix="", **fields):
    made = make(seed, **fields)
    return Model(naming, made, fields.get("data_type", F32), prefix, fields.get("d", 24), fields.get("d_context", fields.get("d", 24)))


CAUSAL = Options(causal="bottom_right")
SLOPES, SINKS = np.array([0.5, 0.25, 0.125, 0.0625], np.float32), np.array([0.5, -1.0, 2.0, 0.0], np.float32)

MODELS = {
    "notebook": model("notebook", 1, heads=1, e=24, bias=True, output=False),
    "notebook/output": model("notebook", 2, bias=True, d_out=7),
    "torch-mha": model("torch-mha", 3, e=6, bias=True, prefix="encoder.layers.3."),
    "bert": model("bert", 4, bias=True, prefix="bert.encoder.layer.11."),
    "bert/cross": model("bert", 5, bias=True, d_context=40),
    "vit": model("vit", 6, bias=True),
    "distilbert": model("distilbert", 7, bias=True),
    "gpt2": model("gpt2", 8, e=6, bias=True, options=CAUSAL, prefix="h.5."),
    "gpt-neox": model("gpt-neox", 9, bias=True, options=CAUSAL, rotary=Rotary(dim=2)),
    "falcon": model("gpt-neox", 10, kv_heads=2, options=CAUSAL, rotary=Rotary()),
    "gpt-j": model("opt", 11, options=CAUSAL, rotary=Rotary("interleaved", dim=4)),
    "opt": model("opt", 12, bias=True, options=CAUSAL),
    "llama": model("llama", 13, options=CAUSAL, rotary=Rotary(), prefix="model.layers.0."),
    "llama/grouped": model("llama", 14, heads=6, kv_heads=2, options=CAUSAL, rotary=Rotary(base=500000.0)),
    "llama/linear": model("llama", 15, options=CAUSAL, rotary=Rotary(linear_factor=4.0)),
    "llama3": model("llama", 16, d=64, kv_heads=2, e=32, options=CAUSAL, rotary=Rotary(base=500000.0, llama3=LLAMA31)),
    "llama/f16": model("llama", 17, kv_heads=2, options=CAUSAL, rotary=Rotary(), data_type=F16),
    "llama/bf16": model("llama", 18, kv_heads=2, options=CAUSAL, rotary=Rotary(), data_type=BF16),
    "mistral": model("llama", 19, kv_heads=1, options=Options(causal="bottom_right", left=3), rotary=Rotary(), data_type=BF16),
    "qwen2": model("llama", 20, kv_heads=2, bias=True, options=CAUSAL, rotary=Rotary(base=1e6), data_type=BF16),
    "qwen3": model("llama", 21, kv_heads=2, e=16, options=CAUSAL, rotary=Rotary(base=1e6), norm=head_norm()),
    "olmo2": model("llama", 22, kv_heads=2, options=CAUSAL, rotary=Rotary(), norm=head_norm(of_all_heads=True)),
    "gemma2": model(
        "llama", 23, kv_heads=2, e=16, options=Options(causal="bottom_right", left=5, softcap=4.0, scale=0.125), rotary=Rotary()
    ),
    "gemma3": model(
        "llama",
        24,
        kv_heads=2,
        e=16,
        options=CAUSAL,
        rotary=Rotary(linear_factor=8.0, base=1e6),
        norm=head_norm(adds_one=True),
        data_type=BF16,
    ),
    "phi": model("phi", 25, bias=True, options=CAUSAL, rotary=Rotary(dim=4), norm=head_norm("layer", bias=True, epsilon=1e-5)),
    "phi3": model("phi3", 26, kv_heads=2, options=CAUSAL, rotary=Rotary(), data_type=F16),
    "gpt-oss": model(
        "llama", 27, kv_heads=2, bias=True, options=Options(causal="bottom_right", left=6, sinks=SINKS), rotary=Rotary(), data_type=BF16
    ),
    "mpt": model("mpt", 28, options=Options(causal="bottom_right", alibi_slopes=SLOPES)),
    "timm": model("timm", 29, bias=True),
    "t5": model("t5", 30, options=Options(scale=1.0)),
    "wide-values": model("llama", 31, e=8, v=12, options=CAUSAL, rotary=Rotary("interleaved")),
    "tall": model("llama", 32, d=130, heads=2, e=65, options=CAUSAL),
    "layer-norm-without-bias": model("phi", 33, norm=head_norm("layer", epsilon=0.0), rotary=Rotary()),
}


def request_of(name, tokens, context=None, options=None, offset=0):
    one_offset = {"position_offset": offset} if isinstance(offset, int) else {"position_offsets": offset}
    request = pb.AttendRequest(
        embeddings=to_tensor(tokens), layer_name=name, options=to_options(options, per_head=True), outputs=OUTPUTS, **one_offset
    )
    if context is not None:
        request.context.CopyFrom(to_tensor(context))
    return request


def expected(model_, tokens, context=None, options=None, offset=0):
    """{field: (array, bound)}."""
    layer = model_.layer
    answer = layer_oracle.attend(layer, tokens, context, options, offset)
    output, bound = answer.merged, tolerance.attention(answer.value)
    if "output" in layer.projections:
        bound = tolerance.projection(output, *layer.projections["output"], bound)
    scores = 2 * tolerance.scores(answer.query, answer.key, options or layer.options)
    return {
        "output": (answer.output, bound),
        "attention_weights": (answer.result.weights, tolerance.WEIGHTS),
        "log_sum_exp": (answer.result.log_sum_exp, tolerance.LOG_SUM_EXP),
        "query": (answer.query, tolerance.attention(answer.query)),
        "key": (answer.key, tolerance.attention(answer.key)),
        "value": (answer.value, tolerance.attention(answer.value)),
        "scores": (answer.result.scores, scores + 2 * tolerance.attention(answer.query)),
    }


class ModelsCase(unittest.TestCase):
    """Tests of `models`, {name: Model}, which one server has. What `flags` returns starts it."""

    models: typing.ClassVar = {}

    @classmethod
    def flags(cls):
        return []

    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="attend-models-")
        cls.addClassCleanup(directory.cleanup)
        cls.directory = pathlib.Path(directory.name)
        cls.server = Server(*cls.flags())
        cls.addClassCleanup(cls.server.stop)
        cls.layers = layers_grpc.LayerServiceStub(cls.server.channel)

    def attend(self, *arguments, **keywords):
        return self.server.stub.Attend(request_of(*arguments, **keywords), timeout=PATIENCE)

    def check(self, name, tokens, context=None, options=None, requested=None, offset=0):
        answer = self.attend(name, tokens, context, requested, offset)
        for field, (array, bound) in expected(self.models[name], tokens, context, options, offset).items():
            assert_near(from_tensor(getattr(answer, field)), array, bound, f"{name}: {field}")

    def tokens(self, name, batch, length, seed=0, of_context=False):
        rng = np.random.default_rng([seed, *name.encode()])
        d = self.models[name].d_context if of_context else self.models[name].d
        return rng.standard_normal((batch, length, d), dtype=np.float32)


class ModelsTest(ModelsCase):
    """All models from files, every layer's configuration by flag."""

    models: typing.ClassVar = MODELS

    @classmethod
    def flags(cls):
        flags = []
        for name, one in MODELS.items():
            path = cls.directory / f"{name.replace('/', '_')}.safetensors"
            # Another layer beside it, which the prefix must leave out.
            other = (
                {f"other.{key}": np.zeros_like(array) for key, array in layer_files.tensors(one.layer, one.naming).items()}
                if one.prefix
                else {}
            )
            safetensors.save(path, layer_files.tensors(one.layer, one.naming, one.data_type, one.prefix) | other)
            flags += ["--layer", f"{name}={path}" + (f"#{one.prefix}" if one.prefix else "")]
            flags += ["--layer-config", f"{name}={layer_files.config_json(one.layer)}"]
        return flags

    def test_every_model_against_float64(self):
        """One token and few go other ways through the core than many."""
        for name, one in MODELS.items():
            for length in (1, 5, 40):
                with self.subTest(name, length=length):
                    context = self.tokens(name, 2, length, of_context=True) if one.d_context != one.d else None
                    self.check(name, self.tokens(name, 2, length), context)

    def test_positions_begin_where_the_request_says(self):
        """Turned queries and keys are returned, so that absolute positions can be seen; outputs know relative ones alone."""
        for name in (name for name, one in MODELS.items() if one.layer.rotary):
            for offset in (1, 1000, 131071):
                with self.subTest(name, offset=offset):
                    self.check(name, self.tokens(name, 1, 9), offset=offset)

    def test_each_sequence_of_a_batch_has_its_own_first_position(self):
        for name in (name for name, one in MODELS.items() if one.layer.rotary):
            offsets = [131071, 0, 7]
            with self.subTest(name):
                self.check(name, self.tokens(name, 3, 9), offset=offsets)
                self.check(name, self.tokens(name, 3, 1), self.tokens(name, 3, 20, seed=1), offset=offsets)
                whole = self.attend(name, self.tokens(name, 3, 9), offset=offsets)
                for b, offset in enumerate(offsets):
                    alone = self.attend(name, self.tokens(name, 3, 9)[b : b + 1], offset=offset)
                    for field in ("output", "query", "key", "attention_weights"):
                        one = from_tensor(getattr(whole, field))[b : b + 1]
                        assert_same_bits(one, from_tensor(getattr(alone, field)), f"{name}: {field} of entry {b}")
        tokens = self.tokens("mpt", 2, 9)
        plain, ignoring = self.attend("mpt", tokens), self.attend("mpt", tokens, offset=[3, 1 << 40])
        assert_same_bits(from_tensor(ignoring.output), from_tensor(plain.output), "a layer without rotary embeddings")

    def test_position_offsets_that_are_refused(self):
        cases = {
            "position_offsets": ({"offset": [1]}, {"offset": [1, 2, 3]}, {"offset": [1, 2], "position_offset": 4}),
            "position_offsets[1]": ({"offset": [0, -1]}, {"offset": [0, (1 << 40) + 1]}),
        }
        for field, requests in cases.items():
            for case in requests:
                with self.subTest(field, case=case):
                    request = request_of("llama", self.tokens("llama", 2, 9), offset=case["offset"])
                    request.position_offset = case.get("position_offset", 0)
                    failure = call_failure(self.server.stub.Attend, request)
                    self.assertEqual((failure.code, failure.fields), (grpc.StatusCode.INVALID_ARGUMENT, [field]))
        ragged = request_of("llama", self.tokens("llama", 1, 9), options=Options(cumulative_query_lengths=[0, 4, 9]), offset=[1])
        self.assertEqual(call_failure(self.server.stub.Attend, ragged).fields, ["position_offsets"])
        nameless = pb.AttendRequest(embeddings=to_tensor(self.tokens("llama", 2, 9)), position_offsets=[1, 2])
        self.assertEqual(call_failure(self.server.stub.Attend, nameless).fields, ["position_offsets"])

    def upload_dynamic(self, name):
        """Makes a layer whose rotary embeddings depend on the length of a text of more than 16 tokens; returns its name."""
        one = MODELS["llama"]
        config = layer_files.config(one.layer)
        config.rotary_embedding.dynamic_factor, config.rotary_embedding.original_context_length = 2.0, 16
        upload(self.layers, name, (self.directory / "llama.safetensors").read_bytes(), prefix=one.prefix, config=config)
        return name

    def check_is_refused(self, name, tokens, field, **request):
        failure = call_failure(self.server.stub.Attend, request_of(name, tokens, **request))
        self.assertEqual((failure.code, failure.fields), (grpc.StatusCode.INVALID_ARGUMENT, [field]))
        self.assertIn("send the sequences in requests of their own", failure.message)

    def test_frequencies_that_depend_on_the_length_are_those_of_one_length(self):
        name = self.upload_dynamic("llama/dynamic")
        tokens = self.tokens("llama", 2, 9)
        for offsets in ([0, 7], [20, 20]):  # Within 16 tokens, and as long as each other.
            whole = self.attend(name, tokens, offset=offsets)
            for b, offset in enumerate(offsets):
                alone = self.attend(name, tokens[b : b + 1], offset=offset)
                assert_same_bits(from_tensor(whole.key)[b : b + 1], from_tensor(alone.key), f"{offsets}: entry {b}")
        self.check_is_refused(name, tokens, "position_offsets", offset=[0, 8])

    def test_ragged_frequencies_that_depend_on_the_length_are_those_of_one_length(self):
        name = self.upload_dynamic("llama/dynamic-ragged")
        # Within 16 tokens, beyond and as long as each other, and beyond by what is before them.
        all_tokens = self.tokens("llama", 1, 34)
        for ends, offset in (([0, 5, 21], 0), ([0, 17, 34], 0), ([0, 9, 18], 8)):
            whole = self.attend(name, all_tokens[:, : ends[-1]], options=Options(cumulative_query_lengths=ends), offset=offset)
            for first, last in itertools.pairwise(ends):
                alone = self.attend(name, all_tokens[:, first:last], offset=offset)
                assert_same_bits(from_tensor(whole.output)[:, first:last], from_tensor(alone.output), f"{ends}: from {first}")
        for ends, offset in (([0, 16, 33], 0), ([0, 17, 33], 0), ([0, 8, 17], 8)):
            request = {"options": Options(cumulative_query_lengths=ends), "offset": offset}
            self.check_is_refused(name, all_tokens[:, : ends[-1]], "options.cumulative_query_lengths", **request)

    def test_the_farthest_position_gives_what_the_first_gives(self):
        for name in ("llama", "llama3", "gpt-j", "gemma3"):
            with self.subTest(name):
                tokens = self.tokens(name, 1, 12)
                near = expected(MODELS[name], tokens)
                far = self.attend(name, tokens, offset=1 << 40)
                for field in ("output", "attention_weights", "log_sum_exp"):
                    assert_near(from_tensor(getattr(far, field)), *near[field], field)

    def test_fewer_queries_than_keys_as_a_cache_has_them(self):
        """Query t stands at t + S - T: the last query at the last key."""
        for name in ("llama/grouped", "llama3", "gpt-j", "mistral", "qwen3", "gpt-oss", "mpt"):
            for queries in (1, 3, 11):
                with self.subTest(name, queries=queries):
                    offset = 7 if MODELS[name].layer.rotary else 0
                    self.check(name, self.tokens(name, 2, queries), self.tokens(name, 2, 20, seed=1), offset=offset)

    def test_lengths_move_the_queries_of_a_padded_batch(self):
        for name in ("llama", "gpt-oss", "mistral"):
            layer, lengths = MODELS[name].layer, [9, 4, 0]
            with self.subTest(name):
                options = dataclasses.replace(layer.options, valid_lengths=lengths)
                requested = Options(valid_lengths=lengths)
                self.check(name, self.tokens(name, 3, 9), None, options, requested, offset=3)
                self.check(name, self.tokens(name, 3, 2), self.tokens(name, 3, 9, seed=1), options, requested, offset=3)

    def test_ragged_sequences_are_what_they_are_alone(self):
        """Each begins at position 0 again, and has the bits of a request of its own."""
        for name in ("llama", "qwen3", "gpt-oss", "gpt-j"):
            with self.subTest(name):
                tokens = self.tokens(name, 1, 20)
                ragged = self.attend(name, tokens, options=Options(cumulative_query_lengths=[0, 7, 8, 20]), offset=5)
                for first, last in ((0, 7), (7, 8), (8, 20)):
                    alone = self.attend(name, tokens[:, first:last], offset=5)
                    assert_same_bits(from_tensor(ragged.output)[:, first:last], from_tensor(alone.output), f"{name}: {first} to {last}")

    def test_what_a_request_sets_goes_before_what_the_layer_has(self):
        cases = {
            "gemma2": ({"scale": 0.5}, {"softcap": 1.0}, {"left": 1}, {"right": 0}, {"causal": "top_left"}),
            "gpt-oss": ({"sinks": np.array([1, 2, 3, 4], np.float32)}, {"left": 2}),
            "mpt": ({"alibi_slopes": np.array([1, 0, 0, 1], np.float32)},),
            "t5": ({"scale": 0.25}, {"bias": np.random.default_rng(0).standard_normal((1, 4, 9, 9), dtype=np.float32)}),
        }
        for name, changes in cases.items():
            for change in changes:
                with self.subTest(name, change=list(change)):
                    self.check(
                        name, self.tokens(name, 1, 9), None, dataclasses.replace(MODELS[name].layer.options, **change), Options(**change)
                    )

    def test_16_bit_tokens_under_16_bit_weights(self):
        for name, data_type in (("llama/f16", F16), ("llama/bf16", BF16), ("gemma3", BF16)):
            with self.subTest(name):
                tokens = rounded(self.tokens(name, 1, 9), data_type)
                request = pb.AttendRequest(embeddings=to_tensor(tokens, data_type=data_type), layer_name=name)
                answer = self.server.stub.Attend(request, timeout=PATIENCE).output
                self.assertEqual(answer.data_type, data_type)
                array, bound = expected(MODELS[name], tokens)["output"]
                assert_near(from_tensor(answer), array, rounding(array, data_type, bound), name)

    def test_an_upload_gives_the_bits_of_the_file(self):
        """The same bytes by another way: through CreateLayer, with the configuration in the header."""
        for name, one in MODELS.items():
            with self.subTest(name):
                uploaded = f"uploaded/{name}"
                content = (self.directory / f"{name.replace('/', '_')}.safetensors").read_bytes()
                header = layers_pb.CreateLayerHeader(name=uploaded, prefix=one.prefix, config=layer_files.config(one.layer))
                parts = [layers_pb.CreateLayerRequest(header=header)]
                parts += [layers_pb.CreateLayerRequest(chunk=content[at : at + CHUNK]) for at in range(0, len(content), CHUNK)]
                self.layers.CreateLayer(iter(parts), timeout=PATIENCE)
                tokens = self.tokens(name, 2, 9)
                context = self.tokens(name, 2, 9, of_context=True) if one.d_context != one.d else None
                from_file, from_upload = (self.attend(layer, tokens, context) for layer in (name, uploaded))
                for field, _ in expected(one, tokens, context).items():
                    assert_same_bits(from_tensor(getattr(from_upload, field)), from_tensor(getattr(from_file, field)), f"{name}: {field}")

    def test_a_layer_is_described_as_it_is(self):
        for name, one in MODELS.items():
            with self.subTest(name):
                layer, got = one.layer, self.layers.GetLayer(layers_pb.GetLayerRequest(name=name), timeout=PATIENCE).layer
                rows = {key: weight.shape[0] for key, (weight, _) in layer.projections.items()}
                self.assertEqual((got.config.num_heads, got.config.num_kv_heads), (layer.heads, layer.kv_heads))
                self.assertEqual((got.embed_dim, got.context_dim), (one.d, one.d_context))
                self.assertEqual((got.head_dim, got.value_dim), (rows["query"] // layer.heads, rows["value"] // layer.kv_heads))
                self.assertEqual(got.output_dim, rows.get("output", layer.heads * got.value_dim))
                self.assertEqual(got.has_output_projection, "output" in rows)
                self.assertEqual(got.has_bias, layer.projections["query"][1] is not None)
                self.assertEqual((got.has_query_norm, got.has_key_norm), (layer.query_norm is not None,) * 2)
                self.assertEqual(
                    (got.has_alibi_slopes, got.has_sinks), (layer.options.alibi_slopes is not None, layer.options.sinks is not None)
                )
                self.assertEqual((got.naming, list(got.weight_types), got.read_only), (one.naming, [one.data_type], True))
                self.assertEqual(got.config.HasField("rotary_embedding"), layer.rotary is not None)


def as_published(name, prefix, config, **changes):
    """One of MODELS under `prefix`, whose layer number counts, with the config.json of its library."""
    one = MODELS[name]
    return dataclasses.replace(one, prefix=prefix, layer=dataclasses.replace(one.layer, **changes)), config


ROPE_LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_type": "llama3",
}
MPT_SLOPES = np.array([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8], np.float32)
LLAMA_LAYER = "model.layers.0."

# As the libraries write them; a window of W keys is the query's own and W - 1 before it.
PUBLISHED = {
    "bert": as_published("bert", "encoder.layer.1.", {"model_type": "bert", "num_attention_heads": 4}),
    "vit": as_published("vit", "encoder.layer.0.", {"model_type": "vit", "num_attention_heads": 4}),
    "gpt2": as_published("gpt2", "h.0.", {"model_type": "gpt2", "n_head": 4}),
    "opt": as_published("opt", "model.decoder.layers.0.", {"model_type": "opt", "num_attention_heads": 4}),
    "gpt-neox": as_published(
        "gpt-neox", "gpt_neox.layers.0.",
        {"model_type": "gpt_neox", "num_attention_heads": 4, "hidden_size": 32, "rotary_pct": 0.25, "rotary_emb_base": 10000}
    ),
    "gpt-j": as_published("gpt-j", "transformer.h.0.", {"model_type": "gptj", "n_head": 4, "rotary_dim": 4, "n_embd": 32}),
    "llama3": as_published("llama3", LLAMA_LAYER,
                           {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64,
                           "head_dim": 32, "rope_theta": 500000.0, "rope_scaling": ROPE_LLAMA3}),
    "llama/linear": as_published("llama/linear", LLAMA_LAYER, {"model_type": "llama", "num_attention_heads": 4, "head_dim": 8,
                                 "rope_scaling": {"type": "linear", "factor": 4.0}}),
    "mistral": as_published("mistral", LLAMA_LAYER,
                            {"model_type": "mistral", "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8,
                            "rope_theta": 10000.0, "sliding_window": 4}),
    "qwen2": as_published("qwen2", LLAMA_LAYER,
                          {"model_type": "qwen2", "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32,
                          "rope_theta": 1000000.0, "sliding_window": 3, "use_sliding_window": False}),
    "qwen3": as_published("qwen3", LLAMA_LAYER, {"model_type": "qwen3", "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
                          "rope_theta": 1000000, "rms_norm_eps": 1e-6, "sliding_window": None}),
    "olmo2": as_published("olmo2", LLAMA_LAYER,
                          {"model_type": "olmo2", "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32,
                          "rope_theta": 10000, "rms_norm_eps": 1e-6}),
    "gemma2": as_published("gemma2", LLAMA_LAYER,
                           {"model_type": "gemma2", "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
                           "rope_theta": 10000.0, "attn_logit_softcapping": 4.0, "query_pre_attn_scalar": 64, "sliding_window": 6}),
    "gemma3": as_published("gemma3", "model.layers.5.",
                           {"model_type": "gemma3_text", "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
                           "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
                           "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 16, "sliding_window": 3, "sliding_window_pattern": 6}),
    "gemma3/local": as_published("gemma3", "model.layers.4.",
                                 {"model_type": "gemma3_text", "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
                                 "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
                                  "rope_scaling": {"rope_type": "linear", "factor": 8.0},
                                 "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 16, "sliding_window": 3, "sliding_window_pattern": 6},
                                 rotary=Rotary(), options=Options(causal="bottom_right", left=2)),
    "phi": as_published("phi", LLAMA_LAYER, {"model_type": "phi", "num_attention_heads": 4, "hidden_size": 32, "partial_rotary_factor": 0.5,
                        "qk_layernorm": True, "layer_norm_eps": 1e-5, "rope_theta": 10000.0}),
    "phi3": as_published("phi3", LLAMA_LAYER, {"model_type": "phi3", "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32,
                         "rope_theta": 10000.0, "rope_scaling": None, "sliding_window": 2047}),
    "mpt": as_published("mpt", "transformer.blocks.0.", {"model_type": "mpt", "n_heads": 4, "attn_config": {"alibi": True}},
                        options=Options(causal="bottom_right", alibi_slopes=MPT_SLOPES)),
    "t5": as_published("t5", "encoder.block.1.", {"model_type": "t5", "num_heads": 4, "d_kv": 8}),
}  # fmt: skip


class ConfigJsonTest(ModelsCase):
    """Models as their libraries save them, in a folder each for --layer-dir: what they are, their config.json says."""

    models: typing.ClassVar = {name: one for name, (one, _) in PUBLISHED.items()}

    @classmethod
    def flags(cls):
        for name, (one, config) in PUBLISHED.items():
            folder = cls.directory / name.replace("/", "-")
            folder.mkdir()
            safetensors.save(folder / "model.safetensors", layer_files.tensors(one.layer, one.naming, one.data_type, one.prefix))
            (folder / "config.json").write_text(json.dumps(config))
            (folder / "layer.json").write_text(json.dumps({"prefix": one.prefix}))
        return ["--layer-dir", str(cls.directory)]

    def test_every_model_against_float64(self):
        for name, one in self.models.items():
            with self.subTest(name):
                tokens, offset = self.tokens(name, 2, 12), 77 if one.layer.rotary else 0
                answer = self.attend(name.replace("/", "-"), tokens, offset=offset)
                for field, (array, bound) in expected(one, tokens, offset=offset).items():
                    assert_near(from_tensor(getattr(answer, field)), array, bound, f"{name}: {field}")


if __name__ == "__main__":
    unittest.main()
