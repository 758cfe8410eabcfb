"""`attend layers check`, which reads a file as a server does and needs none."""

import json
import os
import pathlib
import re
import tempfile
import unittest

from cli_harness import GOLDEN, CliTestCase, attend, write_safetensors

SOURCE_DIR = pathlib.Path(os.environ["ATTEND_SOURCE_DIR"])
NOTEBOOK = GOLDEN / "notebook_5x64.safetensors"


class CheckTest(CliTestCase):
    def folder(self, config, **extra):
        tensors = {f"model.layers.0.self_attn.{name}_proj.weight": self.random(8, 8) for name in "qkvo"}
        directory = pathlib.Path(tempfile.mkdtemp(dir=self.directory))
        write_safetensors(directory / "model.safetensors",
                          tensors | {f"model.layers.0.self_attn.{name}": array for name, array in extra.items()})
        (directory / "config.json").write_text(json.dumps(config))
        return directory / "model.safetensors"

    def check(self, file, *flags):
        return json.loads(attend("layers", "check", file, "--prefix", "model.layers.0.", "-o", "json", *flags).text)

    def test_says_what_would_be_loaded_and_who_says_so(self):
        file = self.folder({"model_type": "mistral", "num_attention_heads": 4, "num_key_value_heads": 4, "rope_theta": 500.0,
                            "sliding_window": 16})
        facts = {fact["name"]: (fact["value"], fact["origin"]) for fact in self.check(file, "--num-heads", 2, "--num-kv-heads", 2)["facts"]}
        self.assertEqual(facts["naming"], ("llama", "tensors below 'model.layers.0.self_attn.'"))
        self.assertEqual(facts["heads"], ("2", "the caller, or the file's metadata"))
        self.assertEqual(facts["head size"], ("4", "tensors"))
        self.assertEqual(facts["mask"], ("causal", "model type mistral"))
        self.assertEqual(facts["window"], ("15 keys before", "config.json: sliding_window"))
        self.assertEqual(facts["rotary"], ("halves, base 500", "model type mistral, config.json: rope_theta"))
        self.assertEqual(facts["scale"], ("1/sqrt(4)", "model type mistral"))
        self.assertEqual(facts["softcap"], ("none", "model type mistral"))

    def test_numbers_of_heads_are_decimal(self):
        file = self.folder({"model_type": "llama", "num_attention_heads": 2})
        facts = {fact["name"]: fact["value"] for fact in self.check(file, "--num-heads", "08", "--num-kv-heads", "0004")["facts"]}
        self.assertEqual((facts["heads"], facts["kv heads"]), ("8", "4"))
        for flag in ("--num-heads", "--num-kv-heads"):
            self.assert_fails(attend("layers", "check", file, flag, "0x2"), 2, f"{flag} 0x2: expected an integer")

    def test_tells_options_that_no_checkpoint_has(self):
        config = self.directory / "fast.json"
        config.write_text(json.dumps({"options": {"precision": "PRECISION_FAST"}}))
        file = self.folder({"model_type": "llama", "num_attention_heads": 2})
        facts = {fact["name"]: (fact["value"], fact["origin"]) for fact in self.check(file, "--config", config)["facts"]}
        self.assertEqual(facts["precision"], ("PRECISION_FAST", "the caller, or the file's metadata"))

    def test_tells_scaled_rotary_embeddings(self):
        scaling = {"factor": 2.0, "original_max_position_embeddings": 16}
        factors = {"short_factor": [1.0, 1.0], "long_factor": [2.0, 2.0], "attention_factor": 1.5}
        for scaled, needle in (
            ({"rope_type": "yarn"} | scaling, "halves, 2 frequencies from 1 to 0.005, times 1.06931"),
            ({"rope_type": "longrope"} | scaling | factors, "halves, 2 frequencies from 1 to 0.01, others beyond 16 tokens, times 1.5"),
            ({"rope_type": "dynamic"} | scaling, "halves, base 10000, another base (dynamic NTK, 2) beyond 16 tokens"),
            ({"rope_type": "linear"} | scaling, "halves, base 10000, positions divided by 2"),
        ):
            config = {"model_type": "llama", "num_attention_heads": 2, "max_position_embeddings": 16, "rope_parameters": scaled}
            facts = {fact["name"]: fact["value"] for fact in self.check(self.folder(config))["facts"]}
            self.assertEqual(facts["rotary"], needle)

    def test_tells_every_naming_and_where_each_fact_comes_from(self):
        square = self.random(8, 8)
        separate = lambda *names: {f"{name}.weight": square for name in names}  # noqa: E731
        fused = lambda one, out: {f"{one}.weight": self.random(24, 8), f"{out}.weight": square}  # noqa: E731
        files = {
            "notebook": separate("query", "key", "value"),
            "torch-mha": {"self_attn.in_proj_weight": self.random(24, 8)} | separate("self_attn.out_proj"),
            "bert": separate(*(f"attention.{name}" for name in ("self.query", "self.key", "self.value", "output.dense"))),
            "albert": separate(*(f"attention.{name}" for name in ("query", "key", "value", "dense"))),
            "vit": separate(*(f"attention.{name}" for name in ("attention.query", "attention.key", "attention.value", "output.dense"))),
            "distilbert": separate(*(f"attention.{name}_lin" for name in ("q", "k", "v", "out"))),
            "gpt2": {"attn.c_attn.weight": self.random(8, 24)} | separate("attn.c_proj"),
            "gpt-bigcode": fused("attn.c_attn", "attn.c_proj"),
            "codegen": fused("attn.qkv_proj", "attn.out_proj"),
            "gpt-neox": fused("attention.query_key_value", "attention.dense"),
            "chatglm": fused("self_attention.query_key_value", "self_attention.dense"),
            "llama": separate(*(f"self_attn.{name}_proj" for name in "qkvo")),
            "opt": separate(*(f"self_attn.{name}_proj" for name in ("q", "k", "v", "out"))),
            "phi": separate(*(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "dense"))),
            "phi3": fused("self_attn.qkv_proj", "self_attn.o_proj"),
            "mpt": fused("attn.Wqkv", "attn.out_proj"),
            "modernbert": fused("attn.Wqkv", "attn.Wo"),
            "timm": fused("attn.qkv", "attn.proj"),
            "diffusers": separate(*(f"attn.to_{name}" for name in ("q", "k", "v", "out.0"))),
            "ctrl": separate(*(f"multi_head_attention.{name}" for name in ("Wq", "Wk", "Wv", "dense"))),
            "nemo": separate(*(f"first_sub_layer.{name}" for name in ("query_net", "key_net", "value_net", "out_projection"))),
            "t5": separate(*(f"layer.0.SelfAttention.{name}" for name in "qkvo")),
        }
        more = {
            "gpt-bigcode": {"multi_query": False},
            "chatglm": {"multi_query_attention": True, "multi_query_group_num": 4, "kv_channels": 2},
        }
        table = (SOURCE_DIR / "formats/layers/naming_table.cc").read_text()
        self.assertEqual(set(files), set(re.findall(r'\.name = "([^"]+)"', table)))
        for naming, tensors in files.items():
            directory = pathlib.Path(tempfile.mkdtemp(dir=self.directory))
            write_safetensors(directory / "model.safetensors", {f"h.1.{name}": array for name, array in tensors.items()})
            model_type = naming.replace("-", "_") if naming in ("gpt-bigcode", "chatglm") else "vit"
            config = {"model_type": model_type, "num_attention_heads": 4} | more.get(naming, {})
            (directory / "config.json").write_text(json.dumps(config))
            answer = attend("layers", "check", directory / "model.safetensors", "--prefix", "h.1.", "-o", "json")
            self.assertEqual(answer.code, 0, answer.err)
            facts = {fact["name"]: fact for fact in json.loads(answer.text)["facts"]}
            self.assertEqual(facts["naming"]["value"], naming)
            names = "naming, shape, heads, kv heads, head size, mask, window, rotary, norms, scale, softcap, ALiBi, sinks, output"
            self.assertEqual(list(facts), names.split(", "))
            for fact in facts.values():
                told = fact["origin"].startswith(("config.json: ", f"model type {model_type}", "tensors", "naming t5"))
                self.assertTrue(told, f"{naming}: {fact}")

    def test_tells_tensors_and_notes(self):
        run = attend("layers", "check", NOTEBOOK)
        self.assertEqual(run.code, 0, run.err)
        self.assertIn("not causal, no rotary embedding (assumed: nothing says otherwise)", run.text)
        self.assertIn("key.bias, key.weight, query.bias, query.weight, value.bias, value.weight", run.text)

    def test_refuses_what_a_server_refuses(self):
        refused = (
            ({"model_type": "nova", "num_attention_heads": 2}, {}, "'nova' is not known"),
            ({"model_type": "llama", "num_attention_heads": 2, "attention_window": 3}, {}, "'attention_window' is set"),
            ({"model_type": "llama", "num_attention_heads": 2}, {"gate": self.random(8)}, "model.layers.0.self_attn.gate"),
        )
        for config, extra, needle in refused:
            self.assert_fails(attend("layers", "check", self.folder(config, **extra), "--prefix", "model.layers.0."), 2, needle)
            self.assert_fails(attend("compute", "--input", f"{NOTEBOOK}:x", "--layer", f"{self.folder(config, **extra)}:model.layers.0."),
                              2, needle)

    def test_tells_what_an_upload_takes_that_reads_no_config_json(self):
        file = self.folder({"model_type": "nova"})
        ignoring = self.check(file, "--num-heads", 4, "--ignore-config-json")
        facts = {fact["name"]: fact["value"] for fact in ignoring["facts"]}
        self.assertEqual((facts["heads"], facts["rotary"]), ("4", "none"))
        own, copy = file.with_name("config.json"), file.with_name("layer.json")
        for path in (own, copy):
            path.write_text(json.dumps({"num_heads": 2}))
        facts = {fact["name"]: fact["value"] for fact in self.check(file, "--config", own)["facts"]}
        self.assertEqual(facts["heads"], "2")
        run = attend("layers", "check", file, "--prefix", "model.layers.0.", "--config", copy)
        self.assert_fails(run, 2, "'model_type' is missing")

    def test_weights_that_need_more_than_a_request_has_are_not_sent(self):
        file = self.folder({"model_type": "llama", "num_attention_heads": 2})
        self.assert_fails(attend("compute", "--input", f"{NOTEBOOK}:x", "--layer", f"{file}:model.layers.0."), 2, "a rotary embedding",
                          "attend layers upload")


if __name__ == "__main__":
    unittest.main()
