"""The `attend` command against a server that answers with tensors of the wrong shapes: a sentence, and exit code 3."""

import concurrent.futures
import json
import pathlib
import tempfile
import unittest

import grpc
import numpy as np

from attend_testing.element_types import INT32
from attend_testing.stubs import pb, pb_grpc
from attend_testing.tensors import to_tensor
from cli_harness import attend


def zeros(*shape, data_type=None):
    return to_tensor(np.zeros(shape, np.float32), data_type=data_type)


class Fake(pb_grpc.AttentionServiceServicer):
    """Answers every request with `answer`, or with the status `code`."""

    def __init__(self):
        self.answer, self.code = None, None

    def Attend(self, request, context):
        if self.code:
            context.abort(self.code, "as a server or proxy without details")
        return self.answer


class AnswersTest(unittest.TestCase):
    def setUp(self):
        self.fake = Fake()
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        pb_grpc.add_AttentionServiceServicer_to_server(self.fake, server)
        self.env = {"ATTEND_ENDPOINTS": f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"}
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())
        directory = tempfile.TemporaryDirectory(prefix="attend-cli-")
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.input = self.directory / "x.npy"
        np.save(self.input, np.ones((2, 3), np.float32))

    def compute(self, *flags, **tensors):
        """Computes with `flags`; the server returns the output and `tensors`."""
        self.fake.answer = pb.AttendResponse(output=zeros(2, 3), **tensors)
        return attend("compute", "--input", self.input, *flags, env=self.env)

    def assert_refused(self, run, needle):
        self.assertEqual((run.code, run.out), (3, b""), run.err)
        self.assertRegex(run.err, f"^attend: the server.*{needle}")

    def test_weights_without_rows_and_columns_are_not_drawn(self):
        drawings = (("--show",), ("--plot", self.directory / "plot.svg"), ("--plot", self.directory / "plot.png"))
        for flags in drawings:
            for shape in ((), (4,), (0,), (0, 3), (3, 0), (0, 2, 2), (2, 0, 1 << 40)):
                with self.subTest(flags=flags, shape=shape):
                    # Through the message: NumPy does not make all of them.
                    weights = zeros(int(np.prod(shape, dtype=object)))
                    weights.shape[:] = shape
                    self.assert_refused(self.compute(*flags, attention_weights=weights), r"attention_weights.*two axes")
            self.assert_refused(self.compute(*flags), "attention_weights")
            self.assertEqual(self.compute(*flags, attention_weights=zeros(2, 2)).code, 0)

    def test_top_weights_and_their_indices_have_the_same_axes(self):
        good = {"top_attention_weights": zeros(2, 1), "top_attention_indices": zeros(2, 1, data_type=INT32)}
        flags = ("--top-k", 1)
        self.assertEqual(self.compute(*flags, **good).code, 0)
        for shape in ((), (2,)):
            flat = {"top_attention_weights": zeros(*shape), "top_attention_indices": zeros(*shape, data_type=INT32)}
            self.assert_refused(self.compute(*flags, **flat), "top_attention_weights")
        for indices in (zeros(1, 1, data_type=INT32), zeros(2, 2, data_type=INT32), zeros(2, data_type=INT32), zeros(2, 1)):
            with self.subTest(indices=indices):
                self.assert_refused(self.compute(*flags, **{**good, "top_attention_indices": indices}), "top_attention_indices")

    def test_other_tensors_are_shown_with_the_shape_that_they_have(self):
        for shape in ((), (4,), (0,), (0, 3)):
            with self.subTest(shape=shape):
                run = self.compute("--weights", attention_weights=zeros(*shape))
                self.assertEqual(run.code, 0, run.err)
                self.assertIn(f"attention_weights  float32 [{', '.join(map(str, shape))}]", run.text)

    def test_an_error_without_details_is_an_answer(self):
        """Of an older server, or of a proxy. Both commands tell it from no answer in the same way."""
        codes = grpc.StatusCode
        for code, exit_code in ((codes.UNIMPLEMENTED, 3), (codes.UNAUTHENTICATED, 3), (codes.RESOURCE_EXHAUSTED, 3), (codes.INTERNAL, 3),
                                (codes.UNAVAILABLE, 4), (codes.CANCELLED, 4), (codes.DEADLINE_EXCEEDED, 4)):  # fmt: skip
            with self.subTest(code=code):
                self.fake.code = code
                batch = attend("batch", env=self.env, stdin=b'{"embeddings": [[1, 2]]}')
                self.assertEqual(json.loads(batch.out)["error"]["code"], code.name)
                self.assertEqual((self.compute().code, batch.code), (exit_code, exit_code))


if __name__ == "__main__":
    unittest.main()
