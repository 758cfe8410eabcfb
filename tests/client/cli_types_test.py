"""Which element types `attend` sends, converts, prints and writes, held to NumPy in float64."""

import json
import unittest

import numpy as np

import cli_harness
from attend_testing import oracle, safetensors, tolerance
from cli_harness import GOLDEN, bfloat16, from_bfloat16

TYPES = ("float32", "float64", "float16", "bfloat16")


class TypesTest(cli_harness.CliTestCase):
    def save_tensor(self, name, array, dtype="float32"):
        """The source of a .safetensors file that holds `array` as `dtype`, and what its numbers are in float64."""
        stored = bfloat16(array) if dtype == "bfloat16" else array.astype(dtype)
        path = self.directory / f"{name}.{dtype}.safetensors"
        cli_harness.write_safetensors(path, {name: stored})
        return f"{path}:{name}", (from_bfloat16(stored) if dtype == "bfloat16" else stored).astype(np.float64)

    def outputs(self, *arguments):
        """What is written to a .safetensors file."""
        path = self.directory / "out.safetensors"
        run = self.attend_ok(*arguments, "--output", path)
        return safetensors.load(path)[0], run

    def assert_output(self, actual, expected, value, dtype):
        """Within the contract's bound, and a unit in the last place for 16 bits."""
        self.assertEqual(actual.dtype.name, "uint16" if dtype == "bfloat16" else dtype)
        bound = 1e-12 * np.abs(value).max() if dtype == "float64" else tolerance.attention(value)
        numbers = from_bfloat16(actual) if dtype == "bfloat16" else actual
        unit = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(dtype, 0)
        np.testing.assert_array_less(np.abs(numbers - expected), bound + unit * np.abs(expected))

    def test_tensors_are_sent_as_they_are_and_results_have_their_type(self):
        x = self.random(6, 8)
        for dtype in TYPES:
            with self.subTest(dtype):
                source, exact = self.save_tensor("x", x, dtype)
                stored, run = self.outputs("compute", "--input", source, "-o", "table")
                self.assert_output(stored["output"], oracle.attend(*[exact[None, None]] * 3).output[0, 0], exact, dtype)
                self.assertRegex(run.text, rf"output  {dtype} \[6, 8\]")
                self.assertRegex(self.verify("compute", "--input", source).text, "bound .*: ok")
                self.assertEqual(run.err, "")

    def test_npy_files_hold_what_numpy_has(self):
        x = self.random(3, 4)
        for dtype in TYPES:
            with self.subTest(dtype):
                source, _ = self.save_tensor("x", x, dtype)
                stored, _ = self.outputs("compute", "--input", source)
                run = self.attend_npz("compute", "--input", source)
                (array,) = run.arrays
                is_brain = dtype == "bfloat16"
                np.testing.assert_array_equal(array, from_bfloat16(stored["output"]) if is_brain else stored["output"])
                self.assertEqual(array.dtype.name, "float32" if is_brain else dtype)
                self.assertEqual("NumPy has no bfloat16" in run.err, is_brain)
                self.attend_ok("compute", "--input", source, "--output", self.directory / "o.npy")
                np.testing.assert_array_equal(np.load(self.directory / "o.npy"), array)

    def test_dtype_converts_as_numpy_does(self):
        x = self.rng.standard_normal((5, 4))
        x[0] = [1 + 2.0**-11 + 2.0**-40, 1 + 2.0**-8 + 2.0**-40, 1e-9, 0]  # Next to ties of both 16-bit types.
        x[1, 2:] = np.nextafter(2 + 2.0**-7, [0, 9])
        file = self.save("x.npy", x)
        for dtype in TYPES:
            with self.subTest(dtype):
                if dtype == "bfloat16":  # Through float64 spacing, since our helper starts from float32.
                    unit = np.exp2(np.floor(np.log2(np.abs(x), where=x != 0, out=np.zeros_like(x))) - 7)
                    rounded = np.round(x / unit) * unit
                else:
                    rounded = x
                source, _ = self.save_tensor("x", rounded, dtype)
                expected, _ = self.outputs("compute", "--input", source)
                converted, run = self.outputs("compute", "--input", file, "--dtype", dtype)
                np.testing.assert_array_equal(converted["output"], expected["output"])
                self.assertEqual(run.err, "", "asked for, so not worth a note")

    def test_float64_takes_everything_along(self):
        path = GOLDEN / "mha_cross_causal_7x33.safetensors"
        golden, _ = safetensors.load(path)
        wide = self.save("wide.npy", golden["query"].astype(np.float64))
        flags = ("--context", f"{path}:key_value", "--layer", path, "--num-heads", 8, "--causal")
        stored, _ = self.outputs("compute", "--input", wide, *flags, "--weights")
        self.assertEqual({name: array.dtype.name for name, array in stored.items()}, {"output": "float64", "attention_weights": "float64"})
        np.testing.assert_allclose(stored["output"], golden["output_f64"], rtol=0, atol=1e-12)
        for entry in self.comparisons("compute", "--input", wide, *flags, "--weights"):
            self.assertTrue(entry["ok"] and entry["bound"] < (1e-10 if entry["name"] == "output" else 1e-11), entry)
        stored, _ = self.outputs("compute", "--input", f"{path}:query", *flags, "--dtype", "float64")
        np.testing.assert_allclose(stored["output"], golden["output_f64"], rtol=0, atol=1e-12)

    def test_one_float64_of_query_key_and_value_is_enough(self):
        arrays = {name: self.random(4, 8) for name in "qkv"}
        for wide in "qkv":
            files = [self.save_tensor(name, array, "float64" if name == wide else "float32")[0] for name, array in arrays.items()]
            stored, _ = self.outputs("sdpa", "--query", files[0], "--key", files[1], "--value", files[2])
            expected = oracle.attend(*(array[None, None] for array in arrays.values())).output[0, 0]
            self.assert_output(stored["output"], expected, arrays["v"], "float64")

    def test_each_input_of_a_batch_has_its_own_precision(self):
        layer = self.directory / "layer.safetensors"
        weights = {f"{name}.weight": self.rng.standard_normal((4, 4)) for name in ("query", "key", "value")}
        cli_harness.write_safetensors(layer, weights)
        context, x = self.save("c.npy", self.random(5, 4)), self.random(3, 4)
        narrow, wide = self.save("n.npy", x), self.save("w.npy", x.astype(np.float64))
        bias = self.save("b.npy", self.rng.standard_normal((3, 5)))
        shared = ("--context", context, "--layer", layer, "--bias", bias)
        inputs = [word for path in (narrow, narrow, wide, narrow) for word in ("--input", path)]
        run = self.attend_ok("compute", *inputs, *shared, "-o", "json")
        # Layer and options are read for the first input and where the precision is another than before, not for each.
        self.assertEqual(run.err.count("has float64 weights, sent as float32"), 2, run.err)
        self.assertEqual(run.err.count(f"{bias} is float64, sent as float32"), 2, run.err)
        outputs = [json.loads(line)["tensors"]["output"] for line in run.text.splitlines()]
        first, again, second, third = (np.array(output["values"], output["data_type"]).reshape(output["shape"]) for output in outputs)
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(first, third)
        self.assertEqual([first.dtype, second.dtype], [np.float32, np.float64])
        (alone,) = self.attend_npz("compute", "--input", wide, *shared).arrays
        np.testing.assert_array_equal(second, alone)
        sources = (("query", x), ("key", np.load(context)), ("value", np.load(context)))
        q, k, v = (oracle.project(source, weights[f"{name}.weight"])[None, None] for name, source in sources)
        expected = oracle.attend(q, k, v, oracle.Options(bias=np.load(bias))).output[0, 0]
        np.testing.assert_allclose(second, expected, rtol=0, atol=1e-12 * np.abs(v).max())

    def test_a_float64_context_takes_every_input_along(self):
        layer = self.directory / "layer.safetensors"
        cli_harness.write_safetensors(layer, {f"{name}.weight": self.random(4, 4) for name in ("query", "key", "value")})
        narrow, context = self.save("n.npy", self.random(3, 4)), self.save("c.npy", self.rng.standard_normal((5, 4)))
        shared = ("--context", context, "--layer", layer)
        run = self.attend_ok("compute", "--input", narrow, "--input", narrow, *shared, "-o", "json")
        first, second = (json.loads(line)["tensors"]["output"] for line in run.text.splitlines())
        self.assertEqual((first["data_type"], second), ("float64", first))

    def test_verify_of_everything_in_every_type(self):
        path, bias = GOLDEN / "mha_self_causal.safetensors", self.random(1, 4, 1, 50)
        everything = "output,attention_weights,log_sum_exp,query,key,value,scores"
        for dtype in TYPES:
            for bias_type in TYPES:
                with self.subTest(dtype=dtype, bias_type=bias_type):
                    source, _ = self.save_tensor("bias", bias, bias_type)
                    comparisons = self.comparisons("compute", "--input", f"{path}:query", "--layer", path, "--num-heads", 4, "--causal",
                                                   "--bias", source, "--dtype", dtype, "--return", everything, "--top-k", 3)  # fmt: skip
                    self.assertEqual({entry["name"] for entry in comparisons},
                                     {*everything.split(","), "top_attention_weights", "top_attention_indices"})
                    self.assertEqual([entry for entry in comparisons if not entry["ok"]], [])

    def test_a_unit_in_the_last_place_is_allowed_and_two_are_not(self):
        x = np.float16([[1.5, -0.75]])  # A single key: the output is the value itself.
        file = self.save("x.npy", x)
        for units, code in ((0, 0), (1, 0), (2, 1)):
            expected = x.astype(np.float64) + units * np.spacing(x).astype(np.float64) * [[0, 1]]
            run = self.verify("compute", "--input", file, "--expect", self.save("e.npy", expected))
            self.assertEqual(run.code, code, run.text)

    def test_json_has_every_digit(self):
        x = np.array([[0.1, 1 / 3], [1e-300, -2.5]])
        for dtype in ("float64", "float32", "float16"):
            file = self.save("x.npy", x.astype(dtype))
            (array,) = self.attend_npz("compute", "--input", file).arrays
            values = json.loads(self.attend_ok("compute", "--input", file, "-o", "json").out)["tensors"]["output"]["values"]
            np.testing.assert_array_equal(np.array(values, dtype), array.ravel())

    def test_pictures_of_float64_weights(self):
        file = self.save("x.npy", self.rng.standard_normal((4, 3)))
        plots = []
        for dtype in ("float32", "float64"):
            plots.append(self.directory / f"{dtype}.png")
            self.attend_ok("compute", "--input", file, "--dtype", dtype, "--show", "--plot", plots[-1])
        self.assertEqual(plots[0].read_bytes(), plots[1].read_bytes())


if __name__ == "__main__":
    unittest.main()
