"""Joins large messages in memory of huge pages.

gRPC takes a message as one `bytes`. Python lets the kernel give it memory in pages of 4 KiB, which for 64 MiB takes three times
as long as copying what goes into it; NumPy asks for pages of 2 MiB for its arrays, and this does the same for messages.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

LARGE_BYTES = 4 << 20

_PAGE = 1 << 21
_MADV_HUGEPAGE = 14


def memory_size(piece: Any) -> int:
    """The bytes of a buffer."""
    return len(piece) if isinstance(piece, bytes) else piece.nbytes


def _madvise() -> Any:
    """Linux's madvise, or None where there is none, or where the memory of `bytes` is not to be had."""
    if sys.platform != "linux" or sys.implementation.name != "cpython":
        return None
    try:
        function = ctypes.CDLL(None).madvise
    except (AttributeError, OSError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function


_MADVISE = _madvise()
if _MADVISE is not None:
    # A new `bytes` may be filled: see PyBytes_AsString in Python's C API.
    _new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
    _new_bytes.restype, _new_bytes.argtypes = ctypes.py_object, (ctypes.c_char_p, ctypes.c_ssize_t)
    _address_of = ctypes.pythonapi.PyBytes_AsString
    _address_of.restype, _address_of.argtypes = ctypes.c_void_p, (ctypes.py_object,)


def join_large(pieces: list[Any], size: int) -> bytes:
    """b"".join(pieces), which are `size` bytes."""
    if _MADVISE is None:
        return b"".join(pieces)
    out: bytes = _new_bytes(None, size)
    address = _address_of(out)
    first, last = -(-address // _PAGE) * _PAGE, (address + size) // _PAGE * _PAGE
    _MADVISE(first, last - first, _MADV_HUGEPAGE)  # Advice: that it fails changes nothing.
    target = memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")
    at = 0
    for piece in filter(memory_size, pieces):
        piece_size = memory_size(piece)
        source = piece if isinstance(piece, bytes) else memoryview(piece).cast("B")
        target[at : at + piece_size] = source
        at += piece_size
    return out
