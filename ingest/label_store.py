"""Label sets that are seldom read again, compressed in blocks: most bytes of one are those of its neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import cramjam
import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 16 << 10
"""A block is full when it has so many bytes; what is added last may go beyond. 6 µs to decompress."""


class LabelStore:
    """Byte strings by their places, which are numbers; a place is for good.

    What is added goes to the end of the open block, which is compressed once it is full. One thread uses a store.
    """

    def __init__(self) -> None:
        self._sealed: list[bytes] = []
        self._open = bytearray()

    def add(self, label_sets: Sequence[bytes]) -> list[int]:
        """Keep label sets; returns their places: number of the block × BLOCK_BYTES + where it begins."""
        places = []
        for labels in label_sets:
            if len(self._open) >= BLOCK_BYTES:
                self._sealed.append(bytes(cramjam.lz4.compress_block(self._open)))
                self._open.clear()
            places.append(len(self._sealed) * BLOCK_BYTES + len(self._open))
            self._open += labels
        return places

    def get(self, places: NDArray[np.int64], sizes: NDArray[np.int32]) -> list[bytes]:
        """The label sets at these places, in this order, with their sizes in bytes."""
        out = [b""] * len(places)
        order = np.argsort(places, kind="stable")
        block, data = -1, memoryview(b"")
        for i, place, size in zip(order.tolist(), places[order].tolist(), sizes[order].tolist(), strict=True):
            wanted, begin = divmod(place, BLOCK_BYTES)
            if wanted != block:
                block, data = wanted, self._block(wanted)
            out[i] = bytes(data[begin : begin + size])
        return out

    @property
    def nbytes(self) -> int:
        """RAM of all label sets."""
        return sum(map(len, self._sealed)) + len(self._open)

    def _block(self, number: int) -> memoryview:
        if number == len(self._sealed):
            return memoryview(bytes(self._open))
        return memoryview(cramjam.lz4.decompress_block(self._sealed[number]))
