"""What `attend compute` and `attend sdpa` compute, in which forms, held to NumPy in float64 and to PyTorch's results."""

import json
import unittest

import numpy as np

import cli_harness
from attend_testing import oracle, safetensors, tolerance
from cli_harness import GOLDEN, npy_array

NOTEBOOK = GOLDEN / "notebook_5x64.safetensors"


class ComputeTest(cli_harness.CliTestCase):
    def assert_near(self, actual, expected, bound):
        self.assertEqual(actual.shape, expected.shape)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)

    def test_the_notebook_through_a_pipe(self):
        golden, _ = safetensors.load(NOTEBOOK)
        output = npy_array(self.attend_ok("compute", "--input", f"{NOTEBOOK}:x", "--layer", NOTEBOOK, "-o", "npy").out)
        value = oracle.project(golden["x"], golden["value.weight"], golden["value.bias"])
        self.assertEqual(output.dtype, np.float32)
        self.assert_near(output, golden["output_f64"], tolerance.attention(value))

    def test_an_estimate_computes_and_writes_nothing(self):
        path, output = self.save("x.npy", np.ones((6, 8), np.float32)), self.directory / "never.npy"
        run = self.attend_ok("compute", "--input", path, "--causal", "--output", output, "--estimate", "-o", "json")
        cost = json.loads(run.out)
        self.assertEqual(cost["flops"], 2 * (8 + 8) * 21)
        self.assertEqual((cost["admissible"], cost["limit"], cost["input"]), (True, "", str(path)))
        self.assertLess(0, cost["predicted_milliseconds"])
        self.assertGreater(cost["request_bytes"], 6 * 8 * 4)
        self.assertFalse(output.exists())
        weights = json.loads(self.attend_ok("compute", "--input", path, "--weights", "--estimate", "-o", "json").out)
        self.assertGreaterEqual(weights["response_bytes"], cost["response_bytes"] + 6 * 6 * 4)
        rows = self.attend_ok("sdpa", "--query", path, "--key", path, "--value", path, "--estimate").text
        self.assertRegex(rows, r"flops +1152\n")
        self.assertRegex(rows, r"request bytes +\d+ bytes\n")
        self.assertRegex(rows, r"admissible +yes\n$")

    def test_an_estimate_is_a_line_for_each_input_and_no_array(self):
        paths = [self.save(f"{name}.npy", self.random(2, 4)) for name in "ab"]
        inputs = [argument for path in paths for argument in ("--input", path)]
        lines = self.attend_ok("compute", *inputs, "--estimate", "-o", "json").text.splitlines()
        self.assertEqual([json.loads(line)["input"] for line in lines], list(map(str, paths)))
        run = self.attend("compute", "--input", paths[0], "--estimate", "-o", "npy")
        self.assert_fails(run, 2, "^attend: -o npy writes an array, and --estimate has none; use -o json\n$")

    def test_timing_shows_the_receipt(self):
        path = self.save("x.npy", np.ones((6, 8), np.float32))
        info = json.loads(self.attend_ok("info", "-o", "json").out)
        receipt = json.loads(self.attend_ok("compute", "--input", path, "-o", "json").out)["receipt"]
        self.assertEqual(receipt, {"server_version": info["version"], "kernel": info["instruction_set"].lower()})
        table = self.attend_ok("compute", "--input", path, "-o", "table", "--timing").out.decode()
        self.assertIn(f"kernel {receipt['kernel']}", table)

    def test_several_tensors_go_into_one_npz_in_the_order_asked_for(self):
        golden, _ = safetensors.load(NOTEBOOK)
        run = self.attend_npz("compute", "--input", f"{NOTEBOOK}:x", "--layer", NOTEBOOK, "--return", "log_sum_exp,value,output",
                             "--weights")
        log_sum_exp, value, output, weights = run.arrays
        self.assertEqual([log_sum_exp.shape, value.shape, output.shape], [(1, 5), (1, 5, 64), (5, 64)])
        self.assert_near(weights, golden["attention_weights_f64"], tolerance.WEIGHTS)

    def test_torch_multihead_attention_weights(self):
        for name, heads, flags in (
            ("mha_self_causal", 4, ["--causal"]),
            ("mha_cross_causal_7x33", 8, ["--causal"]),
            ("mha_self_padding", 6, ["--valid-lengths", f"{GOLDEN}/mha_self_padding.safetensors:valid_lengths"]),
        ):
            with self.subTest(name):
                path = GOLDEN / f"{name}.safetensors"
                golden, _ = safetensors.load(path)
                context = ["--context", f"{path}:key_value"] if "cross" in name else []
                run = self.attend_npz("compute", "--input", f"{path}:query", *context, "--layer", path, "--num-heads", heads, *flags,
                                     "--weights", "--per-head")
                output, weights = run.arrays
                source, width = golden["key_value" if context else "query"], golden["in_proj_weight"].shape[1]
                value = oracle.project(source, golden["in_proj_weight"][-width:], golden["in_proj_bias"][-width:])
                self.assert_near(output, golden["output_f64"], tolerance.attention(value))
                self.assert_near(weights, golden["attention_weights_f64"], tolerance.WEIGHTS)

    def test_multihead_weights_that_are_apart(self):
        d, kv = 6, 4
        tensors = {"in_proj_bias": self.random(3 * d), "q_proj_weight": self.random(d, d)}
        tensors |= {"k_proj_weight": self.random(d, kv), "v_proj_weight": self.random(d, kv)}
        path = self.directory / "apart.safetensors"
        cli_harness.write_safetensors(path, tensors)
        x, context = self.random(3, d), self.random(5, kv)
        run = self.attend_npz("compute", "--input", self.save("x.npy", x), "--context", self.save("c.npy", context), "--layer", path,
                             "--num-heads", 1)
        bias = tensors["in_proj_bias"]
        q, k, v = (
            oracle.project(source, tensors[f"{name}_proj_weight"], bias[i * d : (i + 1) * d])[None, None]
            for i, (name, source) in enumerate((("q", x), ("k", context), ("v", context)))
        )
        self.assert_near(run.arrays[0], oracle.attend(q, k, v).output[0, 0], tolerance.attention(v))

    def test_a_prefix_finds_one_layer_of_many(self):
        names = ("query", "key", "value")
        tensors = {f"layers.{i}.{name}.weight": self.random(4, 4) for i in range(2) for name in names}
        path = self.directory / "model.safetensors"
        cli_harness.write_safetensors(path, tensors)
        x = self.random(3, 4)
        outputs = []
        for prefix in ("layers.1", "layers.1."):
            run = self.attend_npz("compute", "--input", self.save("x.npy", x), "--layer", f"{path}:{prefix}")
            outputs.append(run.arrays[0])
        q, k, v = (oracle.project(x, tensors[f"layers.1.{name}.weight"])[None, None] for name in names)
        self.assert_near(outputs[0], oracle.attend(q, k, v).output[0, 0], tolerance.attention(v))
        np.testing.assert_array_equal(*outputs)

    def test_output_projections_under_each_of_their_names(self):
        x = self.random(3, 4)
        tensors = {f"{name}.weight": self.random(4, 4) for name in ("query", "key", "value")}
        projection, bias = self.random(2, 4), self.random(2)
        q, k, v = (oracle.project(x, tensors[f"{name}.weight"])[None, None] for name in ("query", "key", "value"))
        expected = oracle.project(oracle.attend(q, k, v).output[0, 0], projection, bias)
        for name in ("output", "out_proj"):
            with self.subTest(name):
                path = self.directory / f"{name}.safetensors"
                cli_harness.write_safetensors(path, tensors | {f"{name}.weight": projection, f"{name}.bias": bias})
                run = self.attend_npz("compute", "--input", self.save("x.npy", x), "--layer", path)
                self.assert_near(run.arrays[0], expected, tolerance.attention(v))

    def test_every_option_reaches_the_server(self):
        heads, queries, keys, dim = 2, 4, 6, 8
        q, k, v = self.random(1, heads, queries, dim), self.random(1, heads, keys, dim), self.random(1, heads, keys, dim)
        mask = self.rng.random((queries, keys)) < 0.8
        bias, slopes, sinks = self.random(1, heads, queries, keys), np.float32([0.5, 0.25]), np.float32([0.1, -0.2])
        key_mask = np.array([True, False, True, True, False, True])
        arrays = dict(q=q, k=k, v=v, mask=mask, bytes=mask.astype(np.uint8), bias=bias, slopes=slopes, keys=key_mask)
        files = {name: self.save(f"{name}.npy", array) for name, array in arrays.items()}
        cases = {
            "nothing": ([], {}),
            "causal": (["--causal"], {"causal": "bottom_right"}),
            "causal top left": (["--causal-top-left"], {"causal": "top_left"}),
            "scale": (["--scale", "0.75"], {"scale": 0.75}),
            "softcap": (["--softcap", "0.5"], {"softcap": 0.5}),
            "window": (["--window-left", "2", "--window-right", "0"], {"left": 2, "right": 0}),
            "valid lengths": (["--valid-lengths", "3"], {"valid_lengths": [3]}),
            "mask": (["--mask", files["mask"]], {"mask": mask}),
            "mask of bytes": (["--mask", files["bytes"]], {"mask": mask}),
            "key mask": (["--key-mask", files["keys"]], {"key_mask": key_mask}),
            "bias": (["--bias", files["bias"]], {"bias": bias}),
            "slopes given": (["--alibi-slopes", "0.5,0.25"], {"alibi_slopes": slopes}),
            "slopes in a file": (["--alibi-slopes", files["slopes"]], {"alibi_slopes": slopes}),
            "sinks": (["--sinks=0.1,-0.2"], {"sinks": sinks}),
        }
        outputs = {}
        for name, (flags, options) in cases.items():
            with self.subTest(name):
                run = self.attend_npz("sdpa", "--query", files["q"], "--key", files["k"], "--value", files["v"], *flags)
                (outputs[name],) = run.arrays
                self.assert_near(outputs[name], oracle.attend(q, k, v, oracle.Options(**options)).output, tolerance.attention(v))
        for name, output in outputs.items():
            if name != "nothing":
                self.assertFalse(np.array_equal(output, outputs["nothing"]), f"{name} made no difference")

    def test_layouts(self):
        q, k, v = self.random(2, 3, 4, 8), self.random(2, 3, 6, 8), self.random(2, 3, 6, 5)
        expected = oracle.attend(q, k, v).output
        for layout, axes in (("bhte", (0, 1, 2, 3)), ("bthe", (0, 2, 1, 3))):
            with self.subTest(layout):
                swapped = [np.ascontiguousarray(x.transpose(axes)) for x in (q, k, v)]
                files = [self.save(f"{name}.npy", x) for name, x in zip("qkv", swapped, strict=True)]
                flags = ["--query", files[0], "--key", files[1], "--value", files[2], "--layout", layout]
                (output,) = self.attend_npz("sdpa", *flags).arrays
                self.assert_near(output, expected.transpose(axes), tolerance.attention(v))
                keys = self.save("keys.npy", self.rng.random((2, 6)) < 0.7)
                self.comparisons("sdpa", *flags, "--key-mask", keys, "--causal", "--return", "output,scores,attention_weights,log_sum_exp")

    def test_precision_is_sent(self):
        files = [self.save(f"{name}.npy", self.random(4, 8)) for name in "qkv"]
        flags = ["sdpa", "--query", files[0], "--key", files[1], "--value", files[2]]
        exact, fast = (self.attend_npz(*flags, "--precision", word).arrays[0] for word in ("exact", "fast"))
        np.testing.assert_array_equal(exact, fast)
        self.assertIn("--precision", self.attend(*flags, "--precision", "some").err)

    def test_numbers_on_the_command_line_are_float64_where_the_inputs_are(self):
        q, k, v = (self.rng.standard_normal((1, 2, n, 8)) for n in (4, 6, 6))
        files = [self.save(f"{name}.npy", x) for name, x in zip("qkv", (q, k, v), strict=True)]
        flags = ["--query", files[0], "--key", files[1], "--value", files[2]]
        numbers = np.array([0.1, 0.7])
        cases = {
            "scale": (["--scale", "0.1"], {"scale": 0.1}),
            "softcap": (["--softcap", "1.3"], {"softcap": 1.3}),
            "slopes given": (["--alibi-slopes", "0.1,0.7"], {"alibi_slopes": numbers}),
            "sinks in a file": (["--sinks", self.save("sinks.npy", numbers)], {"sinks": numbers}),
        }
        for name, (more, options) in cases.items():
            with self.subTest(name):
                (output,) = self.attend_npz("sdpa", *flags, *more).arrays
                self.assert_near(output, oracle.attend(q, k, v, oracle.Options(**options)).output, tolerance.DOUBLE * np.abs(v).max())

    def test_integers_are_sent_as_float32(self):
        x = self.rng.integers(-3, 4, (3, 4))
        (expected,) = self.attend_npz("compute", "--input", self.save("x.npy", x.astype("<f4"))).arrays
        for kind, noted in (("<f4", False), ("<i8", True), ("<i4", True), ("|i1", False)):
            with self.subTest(kind):
                run = self.attend_npz("compute", "--input", self.save("y.npy", np.asfortranarray(x.astype(kind))))
                np.testing.assert_array_equal(run.arrays[0], expected)
                self.assertEqual("sent as float32" in run.err, noted, run.err)

    def test_standard_input(self):
        x = self.random(3, 4)
        path = self.save("x.npy", x)
        from_file = self.attend_ok("compute", "--input", path)
        self.assertEqual(self.attend_ok("compute", "--input", "-", stdin=path.read_bytes()).out, from_file.out)
        twice = self.attend("compute", "--input", "-", stdin=2 * path.read_bytes())
        self.assert_fails(twice, 2, "^attend: standard input: more bytes follow the .npy array that is read last\n$")
        both = self.attend_ok("sdpa", "--query", "-", "--key", "-", "--value", "-", stdin=3 * path.read_bytes())
        alike = self.attend_ok("sdpa", "--query", path, "--key", path, "--value", path)
        self.assertEqual(both.out, alike.out)

    def test_json(self):
        x = np.float32([[0.1, 0], [0, 1]])
        mask = np.array([[True, False], [False, False]])
        files = ("--input", self.save("x.npy", x), "--mask", self.save("m.npy", mask))
        run = self.attend_ok("compute", *files, "--return", "output,log_sum_exp", "-o", "json")
        answer = json.loads(run.out)
        self.assertEqual(run.out.count(b"\n"), 1, "one line per answer")
        self.assertEqual(answer["tensors"]["output"], {"data_type": "float32", "shape": [2, 2], "values": [0.1, 0, 0, 0]})
        self.assertIn(b"[0.1,0.0", run.out, "floats are written in their shortest form")
        self.assertEqual(answer["tensors"]["log_sum_exp"]["values"][1], "-Infinity")
        self.assertLessEqual({"receive", "compute"}, set(answer["server_timing_ms"]))
        self.assertGreater(answer["round_trip_ms"], 0)
        self.assertEqual(run.err, "")

    def test_table(self):
        run = self.attend_ok("compute", "--input", self.save("x.npy", np.eye(20, dtype=np.float32)), "-o", "table", "--timing")
        self.assertRegex(run.text, r"^output  float32 \[20, 20\]\n")
        self.assertIn("...", run.text)
        self.assertRegex(run.text, r"round trip [0-9.]+ ms to ipv4:127")
        self.assertRegex(run.text, r"server compute +[0-9.]+ ms")

    def test_files(self):
        x = self.save("x.npy", self.random(3, 4))
        run = self.attend_ok("compute", "--input", x, "--output", self.directory / "out.npy")
        self.assertEqual(run.out, b"", "stored, so not printed")
        (expected,) = self.attend_npz("compute", "--input", x).arrays
        np.testing.assert_array_equal(np.load(self.directory / "out.npy"), expected)
        self.attend_ok("compute", "--input", x, "--weights", "--output", self.directory / "out.safetensors")
        stored, _ = safetensors.load(self.directory / "out.safetensors")
        self.assertEqual(set(stored), {"output", "attention_weights"})
        np.testing.assert_array_equal(stored["output"], expected)
        self.assertEqual({path.name for path in self.directory.iterdir()}, {"x.npy", "out.npy", "out.safetensors"},
                         "no temporary file is left")

    def test_a_batch_of_files(self):
        arrays = {f"x{i}": self.random(3 + i, 4) for i in range(3)}
        inputs = [flag for name, array in arrays.items() for flag in ("--input", self.save(f"{name}.npy", array))]
        (self.directory / "out").mkdir()
        self.attend_ok("compute", *inputs, "--output-dir", self.directory / "out")
        for name, array in arrays.items():
            stored = np.load(self.directory / "out" / f"{name}.npy")
            self.assert_near(stored, oracle.attend(*[array[None, None]] * 3).output[0, 0], tolerance.attention(array))
        self.attend_ok("compute", *inputs, "--weights", "--output-dir", self.directory / "out")
        self.assertEqual(len(list((self.directory / "out").glob("*.safetensors"))), 3)


class ComparisonTest(cli_harness.CliTestCase):
    def test_the_bound_is_the_promised_one(self):
        golden, _ = safetensors.load(NOTEBOOK)
        value = oracle.project(golden["x"], golden["value.weight"], golden["value.bias"])
        expect = ["--expect", f"{NOTEBOOK}:output_f64", "--expect", f"attention_weights={NOTEBOOK}:attention_weights_f64"]
        output, weights = self.comparisons("compute", "--input", f"{NOTEBOOK}:x", "--layer", NOTEBOOK, *expect)
        self.assertAlmostEqual(output["bound"], tolerance.attention(value), delta=1e-11)
        self.assertAlmostEqual(weights["bound"], 3e-6, delta=1e-12)
        self.assertGreater(output["largest_error"], 0)

    def test_a_wrong_result_is_found_and_told(self):
        x = self.random(4, 3)
        path = self.save("x.npy", x)
        expected = oracle.attend(*[x[None, None]] * 3).output[0, 0]
        bound = tolerance.attention(x)
        for name, shift, code in (("right", 0, 0), ("within", bound / 2, 0), ("beyond", bound * 2, 1), ("NaN", np.nan, 1),
                                  ("infinite", np.inf, 1)):
            with self.subTest(name):
                wrong = expected.copy()
                wrong[2, 1] += shift
                run = self.verify("compute", "--input", path, "--expect", self.save("e.npy", wrong))
                self.assertEqual(run.code, code, run.text)
                if code:
                    self.assertRegex(run.text, r"at \[2, 1\].*TOO LARGE")

    def test_verify_agrees_with_the_server_on_every_tensor(self):
        everything = "output,attention_weights,log_sum_exp,query,key,value,scores"
        path = GOLDEN / "mha_self_causal.safetensors"
        mask = self.save("mask.npy", self.rng.random((2, 1, 50, 50)) < 0.7)
        bias = self.save("bias.npy", self.random(1, 4, 1, 50))
        comparisons = self.comparisons(
            "compute", "--input", f"{path}:query", "--layer", path, "--num-heads", 4, "--causal-top-left", "--mask", mask,
            "--bias", bias, "--softcap", 5, "--window-left", 20, "--alibi-slopes", "0.1,0.2,0.3,0.4", "--sinks", "0,1,2,3",
            "--valid-lengths", "40,50", "--return", everything, "--per-head",
        )  # fmt: skip
        self.assertEqual({entry["name"] for entry in comparisons}, set(everything.split(",")))
        for entry in comparisons:
            self.assertTrue(entry["ok"], entry)
            self.assertLess(entry["bound"], 0.02 if entry["name"] == "scores" else 1e-3, "a bound that bounds something")

    def test_verify_of_given_query_key_and_value(self):
        files = [self.save(f"{name}.npy", self.random(heads, 5, 8)) for name, heads in (("q", 4), ("k", 2), ("v", 2))]
        flags = ["--query", files[0], "--key", files[1], "--value", files[2], "--return", "output,attention_weights,log_sum_exp,scores"]
        for per_head in ([], ["--per-head"]):
            self.assertEqual([entry["ok"] for entry in self.comparisons("sdpa", *flags, *per_head)], [True] * 4)

    def test_the_weights_of_a_named_layer_are_in_the_server(self):
        self.attend_ok("layers", "upload", "cli/verified", NOTEBOOK)
        flags = ("compute", "--input", f"{NOTEBOOK}:x", "--layer", "cli/verified")
        self.assertEqual([entry["ok"] for entry in self.comparisons(*flags, "--expect", f"{NOTEBOOK}:output_f64")], [True])
        self.assert_fails(self.verify(*flags), 2, "those of 'cli/verified' are in the server", "--expect")

    def test_flags_of_attend_verify(self):
        x = self.save("x.npy", self.random(4, 3))
        self.assert_fails(self.verify("compute", "--input", x, "--expect", "nothing=x.npy"), 2, "no returned tensor is called 'nothing'")
        self.assert_fails(self.verify("compute", "--input", x, "--top-k", 2, "--expect", "key=x.npy", "--show"), 2, "--show")

    def test_shapes_that_differ_are_an_error_of_the_user(self):
        x, e = self.save("x.npy", self.random(4, 3)), self.save("e.npy", self.random(3, 4))
        run = self.verify("compute", "--input", x, "--expect", e)
        self.assert_fails(run, 2, r"output has shape \[4, 3\], but .*e.npy has \[3, 4\]")


if __name__ == "__main__":
    unittest.main()
