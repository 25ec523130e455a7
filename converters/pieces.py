"""A tensor read some numbers at a time into an array of the wanted dtype."""

import math
from collections.abc import Iterable

import numpy as np

PIECE = 2**21  # numbers read at once


def assemble(pieces: Iterable[np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array from its numbers in order, cast to a dtype.

    It begins where JAX can use it on a CPU without a copy, at a multiple of 64 bytes.
    """
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    flat = room[start : start + size].view(dtype)
    done = 0
    for piece in pieces:
        flat[done : done + piece.size] = piece
        done += piece.size
    return flat.reshape(shape)
