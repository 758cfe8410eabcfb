"""The package's exceptions in other processes. Needs no server."""

import copy
import pickle
import unittest

import attend
import grpc
from attend import _stream


def errors():
    """One of each class that the package offers."""
    for name in attend.__all__:
        kind = getattr(attend, name)
        if isinstance(kind, type) and issubclass(kind, Exception):
            if kind is attend.ServerTooOldError:
                yield kind(["options.key_mask"], "0.1.7")
            else:
                yield kind(
                    grpc.StatusCode.RESOURCE_EXHAUSTED, "too large", reason="QUEUE_FULL", violations=[attend.Violation("query", "wrong")],
                    metadata={"flag": "--max-request-bytes"}, retry_after=1.5,
                )  # fmt: skip


class CopyTest(unittest.TestCase):
    def test_errors_may_be_pickled_and_copied(self):
        self.assertGreater(len(list(errors())), 9)
        for error in errors():
            error.add_note("of the first process")
            copies = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
            for other in (*copies, copy.copy(error), copy.deepcopy(error)):
                with self.subTest(type(error)):
                    self.assertIs(type(other), type(error))
                    self.assertEqual((str(other), other.args), (str(error), error.args))
                    self.assertEqual(vars(other), vars(error))
                    self.assertEqual((other.code, other.field, other.retry_after), (error.code, error.field, error.retry_after))
                    self.assertIsInstance(other.violations, list)

    def test_answers_of_a_stream_keep_their_errors(self):
        answer = _stream.Answer(3, attend.NotFoundError(grpc.StatusCode.NOT_FOUND, "no layer"))
        with self.assertRaisesRegex(attend.NotFoundError, "NOT_FOUND: no layer"):
            pickle.loads(pickle.dumps(answer)).result  # noqa: B018


if __name__ == "__main__":
    unittest.main()
