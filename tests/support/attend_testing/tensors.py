"""NumPy arrays to attend.v1.Tensor and back, and how to compare them."""

import numpy as np

from attend_testing.element_types import BOOL, F32, INT32, decode, encode
from attend_testing.stubs import pb, tensor_pb2

OUTPUT = pb.OUTPUT_KIND_OUTPUT
WEIGHTS = pb.OUTPUT_KIND_ATTENTION_WEIGHTS
LOG_SUM_EXP = pb.OUTPUT_KIND_LOG_SUM_EXP
QUERY = pb.OUTPUT_KIND_QUERY
KEY = pb.OUTPUT_KIND_KEY
VALUE = pb.OUTPUT_KIND_VALUE
SCORES = pb.OUTPUT_KIND_SCORES
TOP = pb.OUTPUT_KIND_TOP_ATTENTION_WEIGHTS
PER_HEAD = pb.ATTENTION_WEIGHTS_FORM_PER_HEAD


def to_tensor(array, form="data", data_type=None):
    """A tensor of a type, by default float32, or bool for booleans, in the form `data` or `values`.

    As `values` numbers are sent as they are, so that it is the server that rounds them.
    """
    data_type = data_type or (BOOL if array.dtype == bool else F32)
    tensor = tensor_pb2.Tensor(data_type=data_type, shape=array.shape)
    if form == "data":
        tensor.data = encode(array, data_type)
    else:
        tensor.values.extend(array.ravel().astype(np.float32))
    return tensor


def from_tensor(tensor):
    """The array that a response's tensor holds, in whichever form: float32, also for 16 bits, float64 or int32.

    `values` are float32 numbers, whatever the type; indices are made integers again.
    """
    assert bool(tensor.data) != bool(tensor.values), "exactly one of data and values"
    flat = decode(tensor.data, tensor.data_type) if tensor.data else np.array(tensor.values, "<f4")
    return (flat.astype("<i4") if tensor.data_type == INT32 else flat).reshape(tuple(tensor.shape))


def tensors_of(answer):
    """{field: tensor} of all tensors that a response holds."""
    return {field.name: tensor for field, tensor in answer.ListFields() if isinstance(tensor, tensor_pb2.Tensor)}


def to_linear(weight, bias=None, form="data", weight_type=None, bias_type=None):
    linear = pb.Linear(weight=to_tensor(weight, form, weight_type))
    if bias is not None:
        linear.bias.CopyFrom(to_tensor(bias, form, bias_type or weight_type))
    return linear


def assert_near(actual, expected, tolerance, what):
    """Elementwise |actual - expected| <= tolerance, with equal infinities and NaNs; names the worst element."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if actual.shape != expected.shape:
        raise AssertionError(f"{what}: shape {actual.shape}, expected {expected.shape}")
    tolerance = np.broadcast_to(tolerance, expected.shape)
    with np.errstate(invalid="ignore"):
        error = np.abs(actual - expected)
    error[(actual == expected) | (np.isnan(actual) & np.isnan(expected))] = 0
    error[np.isnan(error)] = np.inf
    excess = np.where(error <= tolerance, -np.inf, error - tolerance)
    if excess.size and excess.max() > -np.inf:
        at = np.unravel_index(excess.argmax(), excess.shape)
        raise AssertionError(
            f"{what}: {np.count_nonzero(excess > -np.inf)} of {excess.size} elements are off; the worst, {tuple(map(int, at))}, "
            f"is {actual[at]!r}, expected {expected[at]!r}: an error of {error[at]:.3g} where {tolerance[at]:.3g} is allowed"
        )


def assert_same_bits(actual, expected, what):
    """Equal as bytes, so that -0 is not 0 and a NaN is itself."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        raise AssertionError(f"{what}: {actual.dtype}{actual.shape}, expected {expected.dtype}{expected.shape}")
    unsigned = np.dtype(f"u{expected.dtype.itemsize}")
    one, other = np.ascontiguousarray(actual).view(unsigned), np.ascontiguousarray(expected).view(unsigned)
    if not np.array_equal(one, other):
        at = tuple(int(i) for i in np.argwhere(one != other)[0])
        raise AssertionError(
            f"{what}: {np.count_nonzero(one != other)} of {one.size} elements differ; the first, {at}, is "
            f"{float(actual[at]).hex()}, expected {float(expected[at]).hex()}"
        )
