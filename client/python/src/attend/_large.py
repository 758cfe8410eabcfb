"""Large messages and large results in memory of huge pages.

gRPC takes a message as one `bytes`. Python lets the kernel give it memory in pages of 4 KiB, which for 64 MiB takes three times
as long as copying what goes into it; here the kernel is asked for pages of 2 MiB.

Results have memory of the kernel's own, not of malloc's: when malloc gets 20 MiB back, it gives the kernel those and its other free
memory, which the next call then waits for again, page by page.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
from typing import Any

import numpy as np

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


def copy_of_buffer(data: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The bytes of a buffer in writable memory of their own, aligned for every type."""
    source = np.frombuffer(data, np.uint8)
    if source.nbytes < LARGE_BYTES or _MADVISE is None:
        return source.copy()
    out = _pages(source.nbytes)
    out[:] = source
    return out


def _pages(size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """New memory of whole pages of 2 MiB, that lives as long as the array or a view of it; the first `size` bytes."""
    whole = -(-size // _PAGE) * _PAGE
    try:
        region = np.frombuffer(mmap.mmap(-1, whole + _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    except OSError:  # NumPy says how much memory there is too little of.
        return np.empty(size, np.uint8)
    begin = -region.ctypes.data % _PAGE
    _MADVISE(region.ctypes.data + begin, whole, _MADV_HUGEPAGE)  # Advice: that it fails changes nothing.
    return region[begin : begin + size]


def join_large(pieces: list[Any], size: int) -> bytes:
    """b"".join(pieces), which are `size` bytes."""
    if _MADVISE is None:
        return b"".join(pieces)
    out: bytes = _new_bytes(None, size)
    address = _address_of(out)
    first, last = -(-address // _PAGE) * _PAGE, (address + size) // _PAGE * _PAGE
    _MADVISE(first, last - first, _MADV_HUGEPAGE)  # Advice: that it fails changes nothing.
    moves, at = [], address
    for piece in filter(memory_size, pieces):
        moves.append((at, np.frombuffer(piece, np.uint8).ctypes.data, memory_size(piece)))
        at += memory_size(piece)
    _move_all(moves, size, (out, pieces))
    return out


def _move_all(moves: list[tuple[int, int, int]], size: int, owners: Any) -> None:
    """Copies (to, from, bytes), which are `size` bytes in all: one half here, the other at the same time in another thread. Half of the
    time is the kernel's, which clears the new pages. `owners` of the memory stay for as long as the other thread copies, also when
    this one is interrupted."""
    halves: tuple[list[tuple[int, int, int]], ...] = ([], [])
    before = 0
    for to, source, count in moves:
        first = min(max(size // 2 - before, 0), count)
        halves[0].append((to, source, first))
        halves[1].append((to + first, source + first, count - first))
        before += count

    def move(half: list[tuple[int, int, int]], _: Any = None) -> None:
        for to, source, count in half:
            ctypes.memmove(to, source, count)

    other = threading.Thread(target=move, args=(halves[1], owners))
    try:
        other.start()
    except RuntimeError:  # No more threads, or Python is about to end.
        move(halves[0] + halves[1])
    else:
        move(halves[0])
        other.join()
