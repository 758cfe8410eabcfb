"""Every PyTorch reference case through a real server over a real socket."""

import unittest

import golden_cases
from attend_testing import tolerance
from attend_testing.server import ServerTestCase
from attend_testing.tensors import KEY, LOG_SUM_EXP, OUTPUT, QUERY, VALUE, WEIGHTS, assert_near, from_tensor

FORMS = ("data", "values")


class GoldenTest(ServerTestCase):
    def check(self, case, batched=True, form="data"):
        """One request per form of the attention weights, everything else asked for with the first."""

        def entries(tensor):
            array = from_tensor(tensor)
            return array if batched else array[None]

        request = case.request([OUTPUT, WEIGHTS, LOG_SUM_EXP], form, batched, per_head=True)
        response = self.stub.Attend(request, timeout=60)
        assert_near(entries(response.output), case.output, case.output_tolerance(), f"{case.name} output")
        assert_near(entries(response.attention_weights), case.weights, tolerance.WEIGHTS, f"{case.name} weights")
        assert_near(entries(response.log_sum_exp), case.attended().log_sum_exp, tolerance.LOG_SUM_EXP, f"{case.name} log-sum-exp")
        self.assertEqual(bool(response.output.data), form == "data", "the answer has the form of the question")

        averaged = self.stub.Attend(case.request([WEIGHTS], form, batched), timeout=60)
        self.assertFalse(averaged.HasField("output"), "was not asked for")
        assert_near(
            entries(averaged.attention_weights), case.weights.mean(axis=1), tolerance.WEIGHTS, f"{case.name} averaged"
        )

    def test_every_case_as_it_is(self):
        for case in golden_cases.all_cases():
            for form in FORMS:
                with self.subTest(case.name, form=form):
                    self.check(case, batched=case.batched, form=form)

    def test_a_single_sequence_is_a_batch_of_one(self):
        for case in golden_cases.all_cases():
            if not case.batched:
                with self.subTest(case.name):
                    self.check(case, batched=True)

    def test_each_batch_entry_alone(self):
        for case in golden_cases.all_cases():
            for b in range(len(case.embeddings)):
                with self.subTest(case.name, b=b):
                    self.check(case.entry(b), batched=False)

    def test_projections_are_those_of_the_layer(self):
        for case in golden_cases.all_cases():
            with self.subTest(case.name):
                response = self.stub.Attend(case.request([QUERY, KEY, VALUE]), timeout=60)
                for name, expected in zip(("query", "key", "value"), case.projected(), strict=True):
                    actual = from_tensor(getattr(response, name))
                    assert_near(actual, expected, tolerance.attention(expected), f"{case.name} {name}")


if __name__ == "__main__":
    unittest.main()
