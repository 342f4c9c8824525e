"""Arrays that last and grow, apart from the heap."""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

MAPPED_BYTES = 1 << 18
"""Arrays of so many bytes and more are mapped; smaller ones come from the heap."""


def lasting_zeros(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Zeros, of which pages that nobody has touched take no memory, and all goes back to the system in the end.

    For arrays that stay and are replaced by larger ones: in the heap of the C library, each would leave a gap that
    is too small for the next. What is made for one request belongs into the heap, which has its pages already.
    """
    kind = np.dtype(dtype)
    size_bytes = (shape if isinstance(shape, int) else math.prod(shape)) * kind.itemsize
    if size_bytes < MAPPED_BYTES:
        return np.zeros(shape, dtype=kind)
    pages = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(pages, dtype=kind).reshape(shape)
