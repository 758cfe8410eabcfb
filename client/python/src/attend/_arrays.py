"""NumPy arrays (ml_dtypes' bfloat16 included) and torch CPU tensors as the tensors of the protocol, and back.

Neither torch nor ml_dtypes is imported here: whoever gives us one of theirs has done that.
"""

from __future__ import annotations

import contextlib
import numbers
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from attend._large import copy_of_buffer
from attend._protocol import DATA_TYPES

_FLOATING = ("float32", "float64", "float16", "bfloat16")
_TYPE_NAMES = {number: name for name, number in DATA_TYPES.items()}
# How NumPy sees the bytes of each type. It has no bfloat16 of its own.
_STORED = {"float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": "<u2", "bool": "?", "int32": "<i4"}
_STORED_TYPES = {name: np.dtype(stored) for name, stored in _STORED.items()}
# dtype.name takes a microsecond.
_NAMES_OF_TYPES = {np.dtype(name): name for name in ("float32", "float64", "float16", "bool", "int32")}


def refuse_empty(value: Any, name: str) -> None:
    """The protocol takes an empty string or list for one that is not given, which here None says."""
    if isinstance(value, (str, bytes)) and not value:
        raise ValueError(f"{name} is empty; leave it out, or give None, where there is none")


class Tensor(NamedTuple):
    """An array on its way: the name of its element type, its shape, and the array itself."""

    type: str
    shape: tuple[int, ...]
    array: Any

    def buffer(self, name: str) -> Any:
        """The elements as a contiguous buffer of little-endian bytes; copied only when the array is not that already."""
        array = self.array
        if is_torch(array):
            return _torch_buffer(array, name)
        if self.type == "bfloat16":
            array = np.ascontiguousarray(array).view(np.dtype(np.uint16).newbyteorder(array.dtype.byteorder))
        return np.ascontiguousarray(array, _STORED_TYPES.get(self.type) or np.dtype(self.type).newbyteorder("<"))


def is_torch(array: Any) -> bool:
    if type(array) is np.ndarray:
        return False
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def refuse_torch(tensor: Any, name: str) -> None:
    """What torch alone has and attend cannot compute with: other devices, and gradients."""
    torch = sys.modules["torch"]
    if tensor.device.type != "cpu":
        raise ValueError(f"{name} is on the device {tensor.device}; give it as {name}.cpu()")
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            f"{name} requires a gradient, and attend computes none: call it within torch.no_grad(), or give {name}.detach()"
        )


def modes_of_torch() -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """Makes contexts in which another thread computes with or without gradients as this one does now."""
    torch = sys.modules.get("torch")
    if torch is None:
        return contextlib.nullcontext
    if torch.is_inference_mode_enabled():
        return lambda: torch.inference_mode()
    enabled = torch.is_grad_enabled()
    return lambda: torch.set_grad_enabled(enabled)


def _torch_buffer(tensor: Any, name: str) -> Any:
    torch = sys.modules["torch"]
    refuse_torch(tensor, name)
    tensor = tensor.detach().contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _refuse_masked(array: Any, name: str) -> None:
    """NumPy's masked arrays, also in lists: their elements alone would be sent."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; give {name}.filled(value), or hide keys by key_mask")
    if isinstance(array, (list, tuple)):
        for part in array:
            _refuse_masked(part, name)


def _doubles(array: Any, name: str) -> Any:
    try:
        return array.astype("float64")
    except OverflowError:
        raise ValueError(f"{name} has a number beyond those of float64") from None


def _narrowed(array: Any, list_type: str, name: str) -> Any:
    """Numbers of a list as `list_type`. What has another kind, as text or booleans, stays as it is: no type that is expected."""
    if array.dtype == object and all(isinstance(x, numbers.Real) and not isinstance(x, bool) for x in array.flat):
        array = _doubles(array, name)  # Integers beyond 64 bits, fractions.
    if array.dtype.kind not in "iuf" or array.dtype == list_type:
        return array
    with np.errstate(over="ignore"):
        narrow = array.astype(list_type)
    lost = np.isinf(narrow) & np.isfinite(array)
    if lost.any():
        raise ValueError(f"{name} has the number {array[lost][0]!s}, which is beyond the numbers of {list_type}")
    return narrow


def to_tensor(array: Any, name: str, types: tuple[str, ...] = _FLOATING, list_type: str | None = None) -> Tensor:
    """`array` as a Tensor; nested lists of numbers too, as `list_type` or NumPy's own choice (float64).

    Raises TypeError when its type is none of `types`, and ValueError for a number that `list_type` has not: nothing is converted that
    changes a number but by rounding.
    """
    if is_torch(array):
        type_name = str(array.dtype)[len("torch.") :]
    else:
        if type(array) is not np.ndarray:
            _refuse_masked(array, name)
            is_list = not hasattr(array, "dtype")
            array = np.asarray(array)
            if is_list and list_type is not None:
                array = _narrowed(array, list_type, name)
        type_name = _NAMES_OF_TYPES.get(array.dtype) or array.dtype.name
    if type_name not in types:
        raise TypeError(f"{name} has the type {type_name}; expected {' or '.join(types)}. Convert it first")
    return Tensor(type_name, tuple(array.shape), array)


def to_mask(array: Any, name: str) -> Tensor:
    """A mask of booleans; anything else is refused, because 0 and 1 mean both "visible" in some library."""
    try:
        return to_tensor(array, name, ("bool",))
    except TypeError as error:
        raise TypeError(f"{error}: true is visible") from None


class Kind(NamedTuple):
    """What results are made as: torch tensors, or NumPy arrays whose bfloat16 is the given dtype, in this machine's order of bytes."""

    torch: bool
    bfloat16: Any = None

    @staticmethod
    def of(tensor: Tensor) -> Kind:
        torch = is_torch(tensor.array)
        return Kind(torch, tensor.array.dtype.newbyteorder("=") if tensor.type == "bfloat16" and not torch else None)

    def make(self, type_number: int, shape: tuple[int, ...], data: Any) -> Any:
        """An array of its own memory, aligned and writable, from little-endian bytes."""
        type_name = name_of_type(type_number)
        return self.dress(type_name, copy_of_buffer(data).view(_STORED_TYPES[type_name]).reshape(shape))

    def dress(self, type_name: str, array: Any) -> Any:
        """An array of stored_type(type_name) as the caller's kind has it."""
        if self.torch:
            torch = sys.modules["torch"]
            if type_name == "bfloat16":
                return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
            return torch.from_numpy(array)
        if type_name == "bfloat16" and self.bfloat16 is not None:
            return array.astype(np.uint16, copy=False).view(self.bfloat16)
        return array


def name_of_type(type_number: int) -> str:
    type_name = _TYPE_NAMES.get(type_number, "")
    if type_name not in _STORED_TYPES:
        raise ValueError(f"the server answered with tensors of type {type_number}, which this version of attend-client does not know")
    return type_name


def stored_type(type_name: str) -> np.dtype[Any]:
    """How NumPy sees the bytes of a type."""
    return _STORED_TYPES[type_name]
