"""Inputs of tests of the Python package that need no server, and what its requests send."""

import numpy as np
from attend import _wire

from attend_testing.stubs import pb, tensor_pb2

F32 = tensor_pb2.DATA_TYPE_FLOAT32


def rng():
    return np.random.default_rng(7)


def normal(*shape):
    return rng().standard_normal(shape, np.float32)


def tensor(array, data_type=F32):
    return tensor_pb2.Tensor(data_type=data_type, shape=array.shape, data=array.tobytes())


def sent(request, with_data=True):
    """The message that a request sends, as protobuf reads it; its announced size is checked on the way."""
    pieces, size = request.message.pieces(with_data)
    content = _wire.join(pieces)
    assert len(content) == size, (len(content), size)
    message = {"Attend": pb.AttendRequest, "ScaledDotProductAttention": pb.ScaledDotProductAttentionRequest}[request.method]()
    message.ParseFromString(content)
    return message
