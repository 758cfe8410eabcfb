"""Requests that are wrong in one place, and what a server must say to them."""

import re

import grpc
import numpy as np

from attend_testing.element_types import BOOL, F32
from attend_testing.errors import call_failure
from attend_testing.requests import sdpa_request, to_layer
from attend_testing.server import ServerTestCase
from attend_testing.stubs import pb, tensor_pb2
from attend_testing.tensors import OUTPUT, assert_same_bits, from_tensor, to_tensor


def ones(*shape):
    return np.ones(shape, np.float32)


def raw(shape, data=b"", values=(), data_type=F32):
    """A tensor as given, right or wrong."""
    return tensor_pb2.Tensor(data_type=data_type, shape=shape, data=data, values=values)


def boolean(*shape):
    return raw(shape, b"\x01" * int(np.prod(shape)), data_type=BOOL)


def sdpa(**changes):
    """A good request of 3 queries, 4 keys, 2 heads, 2 batch entries and head size 8; then with fields replaced."""
    request = sdpa_request(ones(2, 2, 3, 8), ones(2, 2, 4, 8), ones(2, 2, 4, 8))
    return change(request, changes)


def attend(**changes):
    """A good request of 2 batch entries, 4 tokens of size 12 and 3 heads."""
    linear = (ones(12, 12), ones(12))
    layer = to_layer(dict.fromkeys(("query", "key", "value", "output"), linear), 3)
    return change(pb.AttendRequest(embeddings=to_tensor(ones(2, 4, 12)), layer=layer, outputs=[OUTPUT]), changes)


def change(request, changes):
    for path, value in changes.items():
        *parents, name = path.split("__")
        message = request
        for parent in parents:
            message = getattr(message, parent)
        message.ClearField(name)
        if value is None:
            continue
        if isinstance(value, (list, tuple)):
            getattr(message, name).extend(value)
        elif hasattr(value, "SerializeToString"):
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)
    return request


class RefusalTestCase(ServerTestCase):
    """Tests that a server refuses what is wrong, says what it is, and goes on serving."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # PyPI's and Debian's protobuf refuse to build some of these messages; what is sent is bytes anyway.
        cls.good = sdpa()
        cls.expected = from_tensor(cls.stub.ScaledDotProductAttention(cls.good, timeout=60).output)

    def check_still_serving(self):
        self.assertTrue(self.server.alive(), self.server.log())
        answer = self.stub.ScaledDotProductAttention(self.good, timeout=60)
        assert_same_bits(from_tensor(answer.output), self.expected, "a good call afterwards")

    def check_refused(self, method, request, field):
        failure = call_failure(method, request)
        self.assertEqual(failure.code, grpc.StatusCode.INVALID_ARGUMENT, failure)
        self.assertEqual(failure.fields, [field], failure)
        self.assertEqual(failure.reason, "INVALID_FIELD", failure)
        self.assertEqual(failure.domain, "attend.v1", failure)
        self.assertIsNone(failure.retry_seconds, failure)
        self.assertRegex(failure.message, r"^\S+ .{10,}", "a sentence")
        self.assertIn(re.match(r"[a-z_.]*[a-z]", field).group(), failure.message, "names the field")
        self.assertTrue(failure.violations[0][1], "a description of what was expected")
        self.assertIn("server-timing", failure.trailers)
        self.check_still_serving()
