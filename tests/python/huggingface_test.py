"""attend.huggingface: small random models with attn_implementation="attend" against the same models with "eager", in float32.
Needs PyTorch and transformers (`make test-python`)."""

import unittest

import attend
import attend.huggingface
import torch
import transformers

from attend_testing.server import Server

TOLERANCE = 1e-4
COMMON = {"vocab_size": 99, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
CAUSAL_MODELS = {
    "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig, COMMON | {"num_key_value_heads": 2}),
    "gpt2": (transformers.GPT2LMHeadModel, transformers.GPT2Config, {"vocab_size": 99, "n_embd": 64, "n_layer": 3, "n_head": 4}),
    # Scores that their cap bends.
    "gemma2": (
        transformers.Gemma2ForCausalLM, transformers.Gemma2Config,
        COMMON | {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 4, "attn_logit_softcapping": 2.0},
    ),
    # Two windows of 4 tokens for every layer that sees all, and scores of their own scale.
    "gemma3": (
        transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig,
        COMMON | {
            "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 4, "query_pre_attn_scalar": 24,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        },
    ),
    "gpt_oss": (
        transformers.GptOssForCausalLM, transformers.GptOssConfig,
        COMMON | {
            "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 4, "num_local_experts": 4, "num_experts_per_tok": 2,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
}  # fmt: skip


class HuggingFaceTestCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        server = Server("--threads", "2")
        cls.addClassCleanup(server.stop)
        cls.client = Counting(server.address)
        cls.addClassCleanup(cls.client.close)
        attend.huggingface.register(client=cls.client)

    def two_models(self, cls, config_cls, arguments):
        """The same model twice: eager, and with attention in the server."""
        torch.manual_seed(0)
        config = config_cls(**arguments)
        eager = cls._from_config(config, attn_implementation="eager").eval()
        with torch.no_grad():
            for name, parameter in eager.named_parameters():
                if parameter.dim() > 1 or "sinks" in name or name.endswith("bias"):  # Small ones would hide what attention does.
                    torch.nn.init.normal_(parameter, std=0.3)
        ours = cls._from_config(config_cls(**arguments), attn_implementation="attend").eval()
        ours.load_state_dict(eager.state_dict())
        self.client.calls = 0
        return eager, ours

    def assert_same_logits(self, actual, expected, seen):
        """At the tokens that are no padding: what eager computes for padding is an accident of its mask."""
        error = ((actual - expected).abs().amax(-1) * seen).max().item()
        self.assertLess(error, TOLERANCE)
        self.assertGreater(expected.abs().max().item(), 0.1, "logits that would hide a difference")


class Counting(attend.Client):
    calls = 0

    def _compute(self, request):
        self.calls += 1
        return super()._compute(request)


def padded(side):
    """(tokens, mask): three texts of 11, 7 and 2 tokens."""
    tokens, mask = torch.randint(1, 99, (3, 11), generator=torch.Generator().manual_seed(1)), torch.ones(3, 11, dtype=torch.long)
    for row, length in enumerate((11, 7, 2)):
        mask[row, slice(length, None) if side == "right" else slice(0, 11 - length)] = 0
    return tokens, mask


class CausalTest(HuggingFaceTestCase):
    def test_padded_batches_give_eagers_logits(self):
        for name, model in CAUSAL_MODELS.items():
            eager, ours = self.two_models(*model)
            for side in ("left", "right"):
                tokens, mask = padded(side)
                with self.subTest(name, side=side), torch.no_grad():
                    arguments = {"input_ids": tokens, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(0)}
                    self.assert_same_logits(ours(**arguments).logits, eager(**arguments).logits, mask)
                    self.assertEqual(self.client.calls, 3, "a call for each layer")
                    self.client.calls = 0

    def test_without_a_mask(self):
        for name, model in CAUSAL_MODELS.items():
            eager, ours = self.two_models(*model)
            tokens, mask = padded("right")
            with self.subTest(name), torch.no_grad():
                self.assert_same_logits(ours(tokens).logits, eager(tokens).logits, torch.ones_like(mask))

    def test_a_cache_that_grows_by_several_tokens_and_by_one(self):
        for name, model in CAUSAL_MODELS.items():
            eager, ours = self.two_models(*model)
            tokens, mask = padded("left")
            positions = (mask.cumsum(1) - 1).clamp(0)
            with self.subTest(name), torch.no_grad():
                caches = [None, None]
                for begin, end in ((0, 5), (5, 9), (9, 10), (10, 11)):
                    logits = []
                    for i, model in enumerate((ours, eager)):
                        answer = model(
                            tokens[:, begin:end], attention_mask=mask[:, :end], position_ids=positions[:, begin:end],
                            past_key_values=caches[i], use_cache=True,
                        )  # fmt: skip
                        caches[i] = answer.past_key_values
                        logits.append(answer.logits)
                    self.assert_same_logits(*logits, mask[:, begin:end])

    def test_generated_text(self):
        for name, model in CAUSAL_MODELS.items():
            eager, ours = self.two_models(*model)
            tokens, mask = padded("left")
            with self.subTest(name):
                arguments = {"attention_mask": mask, "max_new_tokens": 9, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
                self.assertEqual(ours.generate(tokens, **arguments).tolist(), eager.generate(tokens, **arguments).tolist())


class EncoderTest(HuggingFaceTestCase):
    def test_bert(self):
        model = (transformers.BertForMaskedLM, transformers.BertConfig, COMMON)
        if transformers.__version__.startswith("4."):  # Looks attentions up in a table of its own.
            with self.assertRaisesRegex(KeyError, "attend"):
                self.two_models(*model)
            return
        eager, ours = self.two_models(*model)
        for side in ("left", "right"):
            tokens, mask = padded(side)
            with self.subTest(side=side), torch.no_grad():
                self.assert_same_logits(
                    ours(input_ids=tokens, attention_mask=mask).logits, eager(input_ids=tokens, attention_mask=mask).logits, mask
                )
        with torch.no_grad():
            self.assert_same_logits(ours(tokens).logits, eager(tokens).logits, torch.ones_like(mask))

    def test_attention_weights(self):
        eager, ours = self.two_models(*CAUSAL_MODELS["llama"])
        tokens, _ = padded("right")
        with torch.no_grad():
            actual, expected = (model(tokens, output_attentions=True).attentions for model in (ours, eager))
        self.assertEqual(len(actual), 3)
        for one, other in zip(actual, expected, strict=True):
            self.assertLess((one - other).abs().max().item(), TOLERANCE)


class FunctionTest(HuggingFaceTestCase):
    """The registered function by itself."""

    def call(self, mask=None, queries=3, keys=3, module=None, **given):
        function = transformers.AttentionInterface()["attend"]
        self.query, self.key = torch.randn(1, 2, queries, 4), torch.randn(1, 2, keys, 4)
        return function(module or torch.nn.Identity(), self.query, self.key, self.key, mask, **given)

    def assert_is_torchs(self, output, **options):
        expected = torch.nn.functional.scaled_dot_product_attention(self.query, self.key, self.key, **options)
        torch.testing.assert_close(output, expected.transpose(1, 2), rtol=0, atol=1e-5)

    def test_a_mask_of_numbers_is_added(self):
        mask = torch.randn(1, 1, 3, 5)
        output, weights = self.call(mask, keys=5)
        self.assert_is_torchs(output, attn_mask=mask)
        self.assertIsNone(weights)

    def test_without_a_mask_the_module_says_whether_it_is_causal(self):
        module = torch.nn.Identity()
        self.assert_is_torchs(self.call(module=module)[0], is_causal=True)
        self.assert_is_torchs(self.call(module=module, queries=1, keys=5)[0])
        self.assert_is_torchs(self.call(module=module, is_causal=False)[0])
        module.is_causal = False
        self.assert_is_torchs(self.call(module=module, keys=5)[0])

    def test_what_attend_does_not_compute(self):
        with torch.no_grad():
            self.call(position_ids=torch.arange(3), scaling=0.5, position_bias=None, use_cache=True)
            for text, given in (
                ("dropout of 0.1", {"dropout": 0.1}),
                ("position_bias", {"position_bias": torch.zeros(1, 2, 3, 3)}),
                ("head_mask", {"head_mask": torch.ones(2)}),
                ("invented", {"invented": False}),
                ("3 queries and 5 keys", {"keys": 5}),
                ("sliding window of 2", {"sliding_window": 2}),
            ):
                with self.subTest(text), self.assertRaisesRegex(ValueError, text):
                    self.call(**given)

    def test_scores_that_a_model_scales_by_itself(self):
        module = torch.nn.Identity()
        module.scale_attn_by_inverse_layer_idx = True
        with torch.no_grad(), self.assertRaisesRegex(ValueError, "scales its scores"):
            self.call(module=module)

    def test_gradients(self):
        _, ours = self.two_models(*CAUSAL_MODELS["llama"])
        with self.assertRaisesRegex(ValueError, "torch.no_grad"):
            ours(padded("left")[0])


if __name__ == "__main__":
    unittest.main()
