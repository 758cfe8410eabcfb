"""What `attend` reads besides .npy and .safetensors: .npz and .csv files, and batches of JSON lines."""

import io
import json
import os
import subprocess
import unittest

import numpy as np

import cli_harness
from attend_testing import oracle, tolerance
from attend_testing.server import PATIENCE
from cli_harness import GOLDEN

NOTEBOOK = GOLDEN / "notebook_5x64.safetensors"


class NpzTest(cli_harness.CliTestCase):
    def test_what_numpy_writes_is_read_stored_and_deflated(self):
        q, k, v = self.random(2, 5, 8), self.random(2, 7, 8), self.random(2, 7, 8)
        mask = self.rng.random((5, 7)) < 0.7
        expected = oracle.attend(q[None], k[None], v[None], oracle.Options(mask=mask)).output[0]
        for save in (np.savez, np.savez_compressed):
            path = self.directory / f"{save.__name__}.npz"
            save(path, q=q, k=np.asfortranarray(k), v=v, mask=mask)
            run = self.attend_npz("sdpa", "--query", f"{path}:q", "--key", f"{path}:k", "--value", f"{path}:v", "--mask", f"{path}:mask")
            np.testing.assert_allclose(run.arrays[0], expected, rtol=0, atol=tolerance.attention(v))

    def test_one_array_needs_no_name_and_several_do(self):
        one, two = self.directory / "one.npz", self.directory / "two.npz"
        np.savez(one, self.random(3, 4))
        np.savez(two, a=self.random(3, 4), b=self.random(3, 4))
        self.attend_ok("compute", "--input", one)
        self.assert_fails(self.attend("compute", "--input", two), 2, f"{two} holds 2 tensors; say which, as in {two}:NAME. There are: a, b")
        self.assert_fails(self.attend("compute", "--input", f"{two}:c"), 2, f"{two} has no array 'c'; there are: a, b")

    def test_results_of_several_types(self):
        """bfloat16 is what NumPy does not have."""
        x = self.save("x.npy", self.random(4, 8))
        run = self.attend_npz("compute", "--input", x, "--weights", "--top-k", 2, "--dtype", "bfloat16")
        self.assertEqual([array.dtype.name for array in run.arrays], ["float32", "float32", "float32", "int32"])
        self.assertIn("NumPy has no bfloat16", run.err)

    def test_bytes_are_one_array_and_only_where_asked_for(self):
        x = self.save("x.npy", self.random(4, 8))
        self.assertRegex(self.attend_ok("compute", "--input", x).text, r"^output  float32 \[4, 8\]\n")
        run = self.attend("compute", "--input", x, "--weights", "-o", "npy")
        self.assert_fails(run, 2, "-o npy writes one array, but there are 2; use --output FILE.npz")
        self.assert_fails(self.attend("compute", "--input", x, "--input", x, "-o", "npy"), 2, "there are 2; use --output-dir DIR")


class CsvTest(cli_harness.CliTestCase):
    def test_a_matrix_of_text(self):
        x = self.random(3, 4)
        path = self.directory / "x.csv"
        np.savetxt(path, x, delimiter=",", fmt="%.9g")
        run = self.attend_npz("compute", "--input", path)
        self.assertEqual(run.err, "")
        np.testing.assert_array_equal(run.arrays[0], self.attend_npz("compute", "--input", self.save("x.npy", x)).arrays[0])
        self.assertEqual(self.attend_npz("compute", "--input", path, "--dtype", "float64").arrays[0].dtype, np.float64)

    def test_headings_are_refused_with_their_line(self):
        path = self.directory / "x.csv"
        path.write_text("a,b\n1,2\n")
        self.assert_fails(self.attend("compute", "--input", path), 2, f"{path}: line 1, column 1: 'a' is no number; expected numbers")

    def test_a_finite_number_never_becomes_infinite(self):
        path = self.directory / "x.csv"
        for text, flags, why in (
            ("1,2\n3,1e39\n", (), r"line 2, column 2: 1e\+39 is beyond the range of float32"),
            ("1,-1e39\n", ("--dtype", "float32"), r"line 1, column 2: -1e\+39 is beyond the range of float32"),
            ("65519,65520\n", ("--dtype", "float16"), "line 1, column 2: 65520 is beyond the range of float16"),
            ("1,1e999\n", ("--dtype", "float64"), "line 1, column 2: '1e999' is beyond the range of float64"),
        ):
            path.write_text(text)
            self.assert_fails(self.attend("compute", "--input", path, *flags), 2, f"^attend: {path}: {why}\n$")
        path.write_text("1,1e39\n")
        self.assertEqual(self.attend_npz("compute", "--input", path, "--dtype", "float64").arrays[0][0, 1], 1e39)
        path.write_text("inf,1\n")
        self.attend_ok("compute", "--input", path)

    def test_files_and_lists_of_other_flags_likewise(self):
        x, wide = self.save("x.npy", self.random(2, 2)), self.save("wide.npy", np.array([[0, 1], [2, -1e39]]))
        narrow = self.save("narrow.npy", np.float32([[1, 3.4028235e38]]))
        for arguments, why in (
            (("--input", wide, "--dtype", "float32"), rf"{wide}: element \[1, 1\]: -1e\+39 is beyond the range of float32"),
            (("--input", narrow, "--dtype", "bfloat16"), rf"{narrow}: element \[0, 1\]: 3.40282347e\+38 is beyond the range of bfloat16"),
            (("--input", x, "--bias", wide), rf"--bias: {wide}: element \[1, 1\]: -1e\+39 is beyond the range of float32"),
            (("--input", x, "--sinks", "1e39"), r"--sinks: 1e39: element \[0\]: 1e\+39 is beyond the range of float32"),
            (("--input", wide, "--sinks", "1e999"), "--sinks: '1e999' is beyond the range of float64"),
        ):
            self.assertRegex(self.attend("compute", *arguments).err, f"attend: {why}\n$")
            self.assert_fails(self.attend("compute", *arguments), 2)


class BooleanTest(cli_harness.CliTestCase):
    def test_a_boolean_mask_is_no_bias(self):
        """As numbers it would hide nothing: the scores of visible keys would grow by 1."""
        x, mask = self.save("x.npy", self.random(3, 4)), self.save("mask.npy", np.tri(3, dtype=bool))
        why = r"mask.npy is bool \[3, 3\]; expected numbers; a boolean mask \(true is visible\) goes to --mask or --key-mask"
        for flags in (("--bias", mask), ("--alibi-slopes", mask), ("--sinks", mask), ("--context", mask),
                      ("--context", mask, "--dtype", "float32")):  # fmt: skip
            with self.subTest(flags=flags):
                self.assert_fails(self.attend("compute", "--input", x, *flags), 2, f"^attend: .*{why}\n$")
        line = {"embeddings": str(x), "options": {"bias": str(mask)}}
        run = self.attend("batch", stdin=json.dumps(line).encode())
        self.assertRegex(json.loads(run.text)["error"]["message"], f"^options.bias: .*{why}$")
        self.attend_ok("compute", "--input", x, "--mask", mask)

    def test_a_list_of_truths_is_no_bias_either(self):
        line = {"embeddings": [[1, 0], [0, 1]], "options": {"bias": [[True, False], [True, True]]}}
        run = self.attend("batch", stdin=json.dumps(line).encode())
        self.assertEqual(run.code, 3, run.text)
        self.assertEqual(json.loads(run.text)["error"]["fields"][0]["field"], "options.bias.data_type")


class ListTest(cli_harness.CliTestCase):
    def test_lengths_are_one_axis_of_integers_and_never_none(self):
        """No lengths would count as a flag that was left out, and two axes as their elements."""
        x, none, one = self.save("x.npy", self.random(2, 3, 4)), self.save("none.npy", np.int64([])), self.save("one.npy", np.int64(3))
        two = self.save("two.npy", np.int64([[1, 2]]))
        for flag in ("--valid-lengths", "--cumulative-query-lengths", "--cumulative-key-lengths", "--position-offsets"):
            for path, shape in ((none, "0"), (two, "1, 2"), (one, "")):
                with self.subTest(flag=flag, shape=shape):
                    run = self.attend("compute", "--input", x, "--layer-name", "any", flag, path)
                    self.assert_fails(run, 2, rf"^attend: {flag}: {path}: expected integers along one axis, .*int64 \[{shape}\]\n$")
        self.attend_ok("compute", "--input", x, "--valid-lengths", self.save("lengths.npy", np.int32([1, 3])))


class BatchTest(cli_harness.CliTestCase):
    def batch(self, *lines, code=0, **keywords):
        """The answers to lines of JSON, or of text."""
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        run = self.attend("batch", stdin=text.encode(), **keywords)
        self.assertEqual(run.code, code, run.err)
        return [json.loads(line) for line in run.text.splitlines()], run

    def tensor(self, answer, name="output"):
        tensor = answer["tensors"][name]
        return np.array(tensor["values"], tensor["data_type"]).reshape(tensor["shape"])

    def test_an_answer_for_each_line_in_order(self):
        xs = [self.random(3, 4) for _ in range(20)]
        answers, run = self.batch(*({"id": f"r{i}", "embeddings": x.tolist()} for i, x in enumerate(xs)))
        self.assertEqual(run.err, "")
        self.assertEqual([(answer["line"], answer["id"]) for answer in answers], [(i + 1, f"r{i}") for i in range(20)])
        for x, answer in zip(xs, answers, strict=True):
            np.testing.assert_allclose(self.tensor(answer), oracle.attend(*[x[None, None]] * 3).output[0, 0], atol=tolerance.attention(x))

    def test_query_key_and_value_options_files_and_masks(self):
        q, k, v = self.random(1, 2, 4, 8), self.random(1, 2, 6, 8), self.random(1, 2, 6, 8)
        mask = self.rng.random((4, 6)) < 0.7
        line = {"query": q.tolist(), "key": str(self.save("k.npy", k)), "value": v.tolist(),
                "options": {"causal": "bottom_right", "mask": mask.tolist(), "softcap": 2.5},
                "outputs": ["output", "log_sum_exp"]}  # fmt: skip
        (answer,), _ = self.batch(line)
        expected = oracle.attend(q, k, v, oracle.Options(causal="bottom_right", mask=mask, softcap=2.5))
        np.testing.assert_allclose(self.tensor(answer), expected.output, rtol=0, atol=tolerance.attention(v))
        np.testing.assert_allclose(self.tensor(answer, "log_sum_exp"), expected.log_sum_exp, rtol=0, atol=tolerance.LOG_SUM_EXP)

    def test_the_protocols_own_form_of_a_tensor_and_a_named_layer(self):
        self.attend_ok("layers", "upload", "batch/notebook", NOTEBOOK)
        x = self.random(2, 64)
        tensor = {"shape": [2, 64], "values": x.ravel().tolist()}
        (first, second), _ = self.batch({"embeddings": tensor, "layer_name": "batch/notebook"},
                                        {"embeddings": x.tolist(), "layer_name": "batch/notebook"})  # fmt: skip
        np.testing.assert_array_equal(self.tensor(first), self.tensor(second))

    def test_errors_are_lines_and_the_rest_is_answered(self):
        good = {"embeddings": [[1, 0], [0, 1]]}
        answers, run = self.batch(good, "{not json", {"id": 7, "embeding": [[1]]}, {"embeddings": [[1, 2], [3]]}, "",
                                  {"query": [[1, 2]], "key": [[1, 2, 3]], "value": [[1]]}, good, code=2)  # fmt: skip
        self.assertEqual([answer["line"] for answer in answers], [1, 2, 3, 4, 6, 7])
        messages = [answer.get("error", {}).get("message", "") for answer in answers]
        self.assertRegex(messages[1], "JSON")
        self.assertEqual(messages[2:4], ["embeding: there is no such field; did you mean embeddings?",
                                         "embeddings: its lists are of different lengths"])  # fmt: skip
        self.assertEqual(answers[2]["id"], 7)
        self.assertEqual((answers[4]["error"]["code"], answers[4]["error"]["reason"]), ("INVALID_ARGUMENT", "INVALID_FIELD"))
        self.assertTrue(answers[4]["error"]["fields"][0]["field"].startswith("key.shape"))
        self.assertIn("tensors", answers[5])
        self.assertEqual(run.err, "attend: 4 of 6 requests failed\n")

    def test_an_empty_text_is_not_a_field_that_is_left_out(self):
        x = [[1, 0], [0, 1]]
        answers, _ = self.batch({"id": "", "embeddings": x}, {"embeddings": x, "layer_name": ""}, {"embeddings": x, "context": ""},
                                {"embeddings": x, "options": {"causal": ""}}, code=2)  # fmt: skip
        self.assertIn("tensors", answers[0])
        why = "is an empty text; give a value, or leave the field out"
        self.assertEqual([answer["error"]["message"] for answer in answers[1:]],
                         [f"{name}: {why}" for name in ("layer_name", "context", "options.causal")])  # fmt: skip

    def test_an_empty_list_of_lengths_is_not_a_field_that_is_left_out(self):
        x = [[1, 0], [0, 1]]
        answers, _ = self.batch({"embeddings": x, "options": {"valid_lengths": []}}, {"embeddings": x, "position_offsets": []},
                                {"embeddings": x, "options": {"cumulative_query_lengths": []}}, code=2)  # fmt: skip
        why = "is an empty list; give a value, or leave the field out"
        names = ("options.valid_lengths", "position_offsets", "options.cumulative_query_lengths")
        self.assertEqual([answer["error"]["message"] for answer in answers], [f"{name}: {why}" for name in names])

    def test_the_first_failure_is_the_exit_code(self):
        refused = {"query": [[1, 2]], "key": [[1, 2, 3]], "value": [[1]]}
        self.batch(refused, "{", code=3)
        self.batch({"embeddings": [[1]]}, code=4, env={"ATTEND_ENDPOINTS": "127.0.0.1:1"})

    def test_nested_lists_without_end(self):
        answers, _ = self.batch('{"embeddings": ' + "[" * 100000 + "]" * 100000 + "}", {"embeddings": [[1, True]]}, code=2)
        self.assertRegex(answers[0]["error"]["message"], "nested deeper than 64")
        self.assertEqual(answers[1]["error"]["message"], "embeddings: 'true' is not a number as the others are")

    def test_numbers_that_json_does_not_have_are_those_of_the_answers(self):
        (answer,), _ = self.batch({"query": [[0]], "key": [[0]], "value": [["NaN", "-Infinity"]]})
        self.assertEqual(answer["tensors"]["output"]["values"], ["NaN", "-Infinity"])

    def test_a_finite_number_never_becomes_infinite(self):
        x = [[0, 1], [1, 0]]
        answers, _ = self.batch({"embeddings": [[0, 1], [-1e40, 1]]}, {"embeddings": x, "options": {"sinks": [1e39]}},
                                '{"embeddings": [[1e999]]}', {"embeddings": {"shape": [1, 1], "values": [1e39]}},
                                {"embeddings": [[3.4028235e38]]}, code=2)  # fmt: skip
        messages = [answer.get("error", {}).get("message", "") for answer in answers]
        self.assertEqual(messages[:2], ["embeddings: element [1, 0]: -1e+40 is beyond the range of float32",
                                        "options.sinks: element [0]: 1e+39 is beyond the range of float32"])  # fmt: skip
        self.assertNotEqual(messages[2], "")
        self.assertRegex(messages[3], "embeddings: .*1e")
        self.assertIn("tensors", answers[4])

    def test_standard_input_holds_requests_or_a_tensor(self):
        x, lines = np.float32([[1, 0], [0, 1]]), (b'{"embeddings": "-"}\n', b'{"embeddings": [[1, 0], [0, 1]]}\n')
        array, path = io.BytesIO(), self.directory / "requests.jsonl"
        np.save(array, x)
        # What a reader of "-" would swallow, and what it would leave of the next request.
        stdin = lines[0] + array.getvalue() + b"\n" + lines[1]
        for arguments in ([], ["/dev/stdin"]):
            run = self.attend("batch", *arguments, stdin=stdin)
            first, *_, last = map(json.loads, run.text.splitlines())
            self.assertEqual(first["error"]["message"], "embeddings: - is standard input, where the requests come from; name a file")
            self.assertIn("tensors", last)
        path.write_bytes(lines[0])
        self.assertIn("tensors", json.loads(self.attend_ok("batch", path, stdin=array.getvalue()).text))

    def test_a_file_and_an_empty_one(self):
        path = self.directory / "requests.jsonl"
        path.write_text("")
        self.assertEqual(self.attend_ok("batch", path).out, b"")
        path.write_text('{"embeddings": [[1, 0], [0, 1]]}\n')
        self.assertEqual(json.loads(self.attend_ok("batch", path).text)["line"], 1)
        self.assert_fails(self.attend("batch", self.directory / "none.jsonl"), 2, "cannot open .*none.jsonl")

    def test_requests_that_cannot_be_read_are_not_the_end(self):
        """Nothing is mapped at a process's address 0. The writer of a pipe may have made it non-blocking."""
        why = "attend: reading {} failed after line {}; what follows was not sent\n"
        run = self.attend("batch", "/proc/self/mem")
        self.assertEqual((run.code, run.out, run.err), (2, b"", why.format("/proc/self/mem", 0)))
        out, end = os.pipe()
        os.set_blocking(out, False)
        os.write(end, b'{"embeddings": [[1, 0], [0, 1]]}\n{"embeddings": [[1, 0]')
        run = subprocess.run([cli_harness.ATTEND, "batch"], stdin=out, capture_output=True, env=cli_harness.environment(self.env),
                             timeout=PATIENCE, check=False)
        os.close(out)
        os.close(end)
        self.assertEqual((run.returncode, run.stderr.decode()), (2, why.format("standard input", 1)))
        self.assertEqual(len(run.stdout.splitlines()), 1, "half a line is no request")


if __name__ == "__main__":
    unittest.main()
