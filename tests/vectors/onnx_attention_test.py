"""The ONNX project's own tests of its `Attention` operator, through a real attend-server over a real socket.

The cases come from the `onnx` package at the time of the test (onnx.backend.test.case.node), inputs and results both. Each
one that is left out is printed with the reason, and there must be no fewer than COVERED that are not.

    make test-vectors

It is no part of `make test`, because it fetches packages: scripts/vectors-venv.sh installs them into build/venv.
"""

import unittest

import numpy as np

import onnx_cases
from attend_testing.element_types import BF16, F16
from attend_testing.server import Server
from attend_testing.stubs import pb
from attend_testing.tensors import assert_near, from_tensor

# All cases in onnx 1.23.2.
COVERED = 93

# ONNX computes its results in float32 with NumPy, which rounds about as much as attend does.
_SCORES_TOLERANCE = 5e-6
HALF_UNITS = {F16: 2.0**-11, BF16: 2.0**-8}  # Of numbers from 1 to 2, relative.


def _attention_tolerance(case, values):
    """The contract's bound against float64, twice, since both sides round; in 16 bits half a unit for each side.

    ONNX rounds the weights to 16 bits besides, which is another half unit of the mean of the values.
    """
    largest = np.abs(values[np.isfinite(values)]).max()
    narrow = 3 * HALF_UNITS.get(case.type_of("Y"), 0) * largest
    return 2 * (2e-6 * largest + 1e-6) + narrow


class OnnxAttentionTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        server = Server("--threads", "1")
        cls.addClassCleanup(server.stop)
        cls.attend = staticmethod(server.stub.ScaledDotProductAttention)
        cls.cases = onnx_cases.all_cases()

    def test_every_case_that_the_contract_covers_gives_what_onnx_says(self):
        for case in self.cases:
            if case.left_out_because() is None:
                with self.subTest(case.name):
                    self._check(case)

    def test_no_case_is_left_out_unnoticed(self):
        left_out = {case.name: case.left_out_because() for case in self.cases if case.left_out_because()}
        for name, reason in left_out.items():
            print(f"left out: {name}: {reason}")
        covered = len(self.cases) - len(left_out)
        print(f"covered: {covered} of {len(self.cases)}")
        self.assertGreaterEqual(covered, COVERED)

    def _check(self, case):
        problem = onnx_cases.problem_of(case)
        response = self.attend(problem.request([pb.OUTPUT_KIND_OUTPUT]), timeout=60)
        output = onnx_cases.merge_heads_like(case.outputs["Y"], from_tensor(response.output))
        assert_near(output, case.outputs["Y"], _attention_tolerance(case, problem.value), "Y")
        for name in ("key", "value"):
            if f"present_{name}" in case.outputs:
                present = getattr(problem, name)[:, :, : problem.num_keys]
                np.testing.assert_array_equal(present, case.outputs[f"present_{name}"])
        if "qk_matmul_output" in case.outputs:
            self._check_intermediate(case, problem)

    def _check_intermediate(self, case, problem):
        request, field = onnx_cases.intermediate_request(case, problem)
        actual = from_tensor(getattr(self.attend(request, timeout=60), field))
        expected = case.outputs["qk_matmul_output"]
        narrow = HALF_UNITS.get(case.type_of("qk_matmul_output"), 0) * np.abs(expected[np.isfinite(expected)]).max()
        assert_near(actual, expected, _SCORES_TOLERANCE + narrow, field)


if __name__ == "__main__":
    unittest.main()
