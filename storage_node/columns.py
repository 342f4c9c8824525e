"""Arrays that grow at their end."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from common.lasting import lasting_zeros


class Column:
    """A growable array: `data` has room to spare, `view()` is the part in use.

    Growing copies into a new array; views taken before stay valid and keep the old values.
    """

    __slots__ = ("data", "size")

    def __init__(self, dtype: DTypeLike, width: int = 0) -> None:
        self.data: NDArray[Any] = np.zeros((256, width) if width else 256, dtype=dtype)
        self.size = 0

    def view(self) -> NDArray[Any]:
        return self.data[: self.size]

    def reserve(self, size: int) -> None:
        """Make room for `size` elements in all; new room is zero."""
        if size > len(self.data):
            room = max(size, len(self.data) * 3 // 2)
            data = lasting_zeros((room, *self.data.shape[1:]), self.data.dtype)
            data[: self.size] = self.data[: self.size]
            self.data = data

    def extend(self, values: NDArray[Any]) -> None:
        self.reserve(self.size + len(values))
        self.data[self.size : self.size + len(values)] = values
        self.size += len(values)

    def resize(self, size: int) -> None:
        """Set the number of elements in use; new ones are zero if they were never in use."""
        self.reserve(size)
        self.size = size
