"""Top weights, ragged batches and merging of partial results from the command line, held to NumPy in float64."""

import json
import unittest

import numpy as np

import cli_harness
from attend_testing import oracle, tolerance


class TopWeightsTest(cli_harness.CliTestCase):
    def setUp(self):
        super().setUp()
        self.q, self.k, self.v = self.random(1, 2, 5, 8), self.random(1, 2, 9, 8), self.random(1, 2, 9, 8)
        files = [self.save(f"{name}.npy", array) for name, array in (("q", self.q), ("k", self.k), ("v", self.v))]
        self.flags = ("sdpa", "--query", files[0], "--key", files[1], "--value", files[2])

    def test_keys_and_weights_of_each_query(self):
        weights = oracle.attend(self.q, self.k, self.v).weights
        for per_head, expected in (([], weights.mean(axis=1)), (["--per-head"], weights)):
            run = self.attend_npz(*self.flags, "--top-k", 3, *per_head)
            output, top, indices = run.arrays
            self.assertEqual(output.shape, (*self.v.shape[:2], 5, 8))
            self.assertEqual((top.dtype, indices.dtype), (np.float32, np.int32))
            np.testing.assert_array_equal(indices, np.argsort(-expected, axis=-1)[..., :3])
            np.testing.assert_allclose(top, -np.sort(-expected, axis=-1)[..., :3], rtol=0, atol=tolerance.WEIGHTS)

    def test_json_has_whole_numbers_for_keys(self):
        run = self.attend_ok(*self.flags, "--return", "top_attention_weights", "--top-k", 2, "--causal-top-left", "-o", "json")
        answer = json.loads(run.out)
        self.assertEqual(set(answer["tensors"]), {"top_attention_weights", "top_attention_indices"})
        indices = answer["tensors"]["top_attention_indices"]
        self.assertEqual((indices["data_type"], indices["shape"], indices["values"][:2]), ("int32", [1, 5, 2], [0, -1]))
        self.assertNotIn(".", run.text.split('"top_attention_indices":')[1].split("]")[0])
        comparisons = self.comparisons(*self.flags, "--return", "top_attention_weights", "--top-k", 2, "--causal-top-left")
        self.assertEqual([(entry["name"], entry["ok"]) for entry in comparisons],
                         [("top_attention_weights", True), ("top_attention_indices", True)])

    def test_a_table_names_the_keys(self):
        x = self.save("x.npy", 9 * np.eye(3, dtype=np.float32))
        run = self.attend_ok("compute", "--input", x, "--top-k", 2, "--causal", "-o", "table")
        self.assertIn("top_attention_weights  float32 [3, 2]\ntop_attention_indices  int32 [3, 2]\n", run.text)
        self.assertRegex(run.text,
                         r"query    0:  key 0 \(1\)\n  query    1:  key 1 \(1\) +key 0 \(\S+\)\n  query    2:  key 2 \(1\) +key 0")
        self.assertEqual(self.attend_ok(*self.flags, "--top-k", 9, "-o", "table").text.count("...\n"), 5, "at most 8 keys of a query")

    def test_verify_with_ties(self):
        x = self.save("x.npy", np.ones((6, 4), np.float32))
        self.assertEqual([entry["ok"] for entry in self.comparisons("compute", "--input", x, "--top-k", 4)], [True] * 3)

    def test_expected_keys(self):
        (_, _, indices) = self.attend_npz(*self.flags, "--top-k", 2).arrays
        for shift, code in ((0, 0), (1, 1)):
            file = self.save("e.npy", indices + shift)
            self.assertEqual(self.verify(*self.flags, "--top-k", 2, "--expect", f"top_attention_indices={file}").code, code)


class RaggedTest(cli_harness.CliTestCase):
    def test_sequences_get_the_bits_of_requests_of_their_own(self):
        x = self.random(7, 4)
        self.save("all.npy", x)
        alone = [self.attend_npz("compute", "--input", self.save("x.npy", part), "--causal").arrays[0] for part in (x[:3], x[3:])]
        for lengths in ("0,3,7", self.save("lengths.npy", np.array([0, 3, 7]))):
            flags = ("compute", "--input", self.directory / "all.npy", "--causal", "--cumulative-query-lengths", lengths)
            run = self.attend_npz(*flags)
            self.assertEqual(len(self.comparisons(*flags)), 1)
            np.testing.assert_array_equal(run.arrays[0], np.concatenate(alone))

    def test_verify_with_everything_that_is_laid_out_by_sequence(self):
        shapes = (("q", 4, 9), ("k", 2, 12), ("v", 2, 12))
        files = [self.save(f"{name}.npy", self.random(heads, length, 8)) for name, heads, length in shapes]
        longest = 6  # Keys of a sequence: 4, 0, 6, 2.
        flags = ["--cumulative-query-lengths", "0,2,3,9,9", "--cumulative-key-lengths", "0,4,4,10,12", "--causal", "--alibi-slopes",
                 "0.1,0.2,0.3,0.4"]
        flags += ["--mask", self.save("m.npy", self.rng.random((9, longest)) < 0.8), "--bias",
                  self.save("b.npy", self.random(1, 4, 9, longest))]
        for dtype in ("float32", "float64", "bfloat16"):
            for per_head in ([], ["--per-head"]):
                call = ("sdpa", "--query", files[0], "--key", files[1], "--value", files[2], *flags, *per_head, "--dtype", dtype)
                returned = ("--return", "output,attention_weights,scores,log_sum_exp", "--top-k", 3)
                self.assertEqual(len(self.comparisons(*call, *returned)), 6)
                (scores,) = self.attend_npz(*call, "--return", "scores").arrays
                self.assertEqual(scores.shape, (4, 9, longest))

    def test_what_does_not_fit_is_refused_by_the_server(self):
        x = self.save("x.npy", self.random(7, 4))
        self.assert_fails(self.attend("compute", "--input", x, "--cumulative-query-lengths", "0,3,8"), 3,
                          r"the server refuses --cumulative-query-lengths: options.cumulative_query_lengths\[2\]")


class PartialTest(cli_harness.CliTestCase):
    def part(self, name, keys, *flags):
        """Attention over some of the keys, stored with its log-sum-exp."""
        path = self.directory / f"{name}.safetensors"
        self.attend_ok(*self.over(keys), "--return", "output,log_sum_exp", "--output", path, *flags)
        return path

    def over(self, keys):
        k, v = (self.save(f"{name}.npy", array[:, :, keys]) for name, array in (("k", self.k), ("v", self.v)))
        return ("sdpa", "--query", self.save("q.npy", self.q), "--key", k, "--value", v)

    def setUp(self):
        super().setUp()
        self.q, self.k, self.v = self.random(1, 4, 5, 8), self.random(1, 2, 30, 8), self.random(1, 2, 30, 8)

    def test_parts_make_the_whole(self):
        expected = oracle.attend(self.q, self.k, self.v)
        parts = [flag for name, keys in (("a", slice(0, 7)), ("b", slice(7, 19))) for flag in ("--partial", self.part(name, keys))]
        call = (*self.over(slice(19, 30)), *parts, "--return", "output,log_sum_exp")
        run = self.attend_npz(*call)
        output, log_sum_exp = run.arrays
        np.testing.assert_allclose(output, expected.output, rtol=0, atol=2 * tolerance.attention(self.v))
        np.testing.assert_allclose(log_sum_exp, expected.log_sum_exp, rtol=0, atol=tolerance.LOG_SUM_EXP)
        self.assertEqual([entry["ok"] for entry in self.comparisons(*call)], [True] * 2)

    def test_merging_alone(self):
        """One key that nobody sees, as the contract has it; a part that saw no key changes nothing."""
        part, nothing = self.part("a", slice(0, 30)), self.part("b", slice(0, 1), "--valid-lengths", 0)
        call = (*self.over(slice(0, 1)), "--valid-lengths", 0, "--partial", part, "--partial", nothing)
        run = self.attend_npz(*call)
        self.assertEqual(len(self.comparisons(*call)), 1)
        np.testing.assert_array_equal(run.arrays[0], self.attend_npz(*self.over(slice(0, 30))).arrays[0])

    def test_parts_of_16_bits_are_widened(self):
        part = self.part("a", slice(0, 7), "--dtype", "bfloat16")
        self.assertEqual([entry["ok"] for entry in self.comparisons(*self.over(slice(7, 30)), "--partial", part)], [True])

    def test_what_cannot_be_merged_is_said(self):
        part, other = self.part("a", slice(0, 7)), self.directory / "other.safetensors"
        cli_harness.write_safetensors(other, {"output": self.random(1, 4, 6, 8), "log_sum_exp": self.random(1, 4, 6)})
        flags = (*self.over(slice(7, 30)), "--partial", part)
        self.assert_fails(self.attend(*flags, "--partial", other), 2,
                          r"output has shape \[1, 4, 6, 8\], but the first part's has \[1, 4, 5, 8\]")
        refuses = "the server refuses --partial: "
        self.assert_fails(self.attend(*self.over(slice(7, 30)), "--partial", other), 3, refuses + "partials.output.shape")
        self.assert_fails(self.attend(*flags, "--weights"), 3, refuses + ".*ask for the output and the log-sum-exp alone")
        self.assert_fails(self.attend(*flags, "--dtype", "float16"), 3, refuses + ".*FLOAT16")


if __name__ == "__main__":
    unittest.main()
