"""Types of elements as they travel, and how numbers are rounded to them.

NumPy has no bfloat16: its numbers are float32 here, as are those of FLOAT16, so that the widened ones can be compared.
"""

import numpy as np

from attend_testing.stubs import tensor_pb2

F32 = tensor_pb2.DATA_TYPE_FLOAT32
F64 = tensor_pb2.DATA_TYPE_FLOAT64
F16 = tensor_pb2.DATA_TYPE_FLOAT16
BF16 = tensor_pb2.DATA_TYPE_BFLOAT16
BOOL = tensor_pb2.DATA_TYPE_BOOL
INT32 = tensor_pb2.DATA_TYPE_INT32

SINGLE = (F32, F16, BF16)  # These may be mixed; the arithmetic is FLOAT32.

# Half a unit in the last place of numbers from 1 to 2, and of the smallest ones.
_HALF_UNITS = {F32: (2.0**-24, 2.0**-150), F64: (2.0**-53, 0), F16: (2.0**-11, 2.0**-25), BF16: (2.0**-8, 2.0**-134)}
_DTYPES = {F32: "<f4", F64: "<f8", F16: "<f2", BF16: "<u2", BOOL: "?", INT32: "<i4"}


def name_of(data_type):
    return tensor_pb2.DataType.Name(data_type).removeprefix("DATA_TYPE_")


def encode(array, data_type):
    """The bytes of a tensor: numbers rounded to nearest, ties to even."""
    return _narrow(array, data_type).tobytes()


def decode(data, data_type):
    """The numbers in some bytes; those of 16 bits widened to float32."""
    numbers = np.frombuffer(data, _DTYPES[data_type])
    if data_type == BF16:
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32) if data_type == F16 else numbers


def rounded(array, data_type):
    """What the server sees of an array that is sent in a type."""
    return decode(_narrow(array, data_type).tobytes(), data_type).reshape(np.shape(array))


def rounding(expected, data_type, carried=0.0):
    """How far numbers may be from `expected` that had an error of `carried` before they were rounded to a type."""
    relative, smallest = _HALF_UNITS[data_type]
    return carried + relative * (np.abs(expected) + carried) + smallest


def _narrow(array, data_type):
    if data_type != BF16:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(array, _DTYPES[data_type])
    numbers = np.ascontiguousarray(array, np.float32)
    bits = numbers.view(np.uint32).astype(np.uint64)
    upper = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(numbers), bits >> 16 | 0x40, upper).astype("<u2")
