"""Bulk interning: the strings of a pool as bytes in flat arrays, so that known ones cost no Python object."""

from __future__ import annotations

import secrets
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.kernels import index as kernels
from common.lasting import lasting_zeros


def placed(hashes: NDArray[np.int64], values: NDArray[Any], n_slots: int) -> NDArray[Any]:
    """An open-addressing table with linear probing that holds the given values, which are not 0.

    hashes: int64 (n,); the search for value i starts at `hashes[i] & (n_slots - 1)`. n_slots: a power of two > n.
    """
    slots = lasting_zeros(n_slots, values.dtype)
    at = hashes & (n_slots - 1)
    while len(values):
        free = slots[at] == 0
        # Of several that want one slot the last one written gets it; the others go on to the next slot.
        slots[at[free]] = values[free]
        left = slots[at] != values
        at, values = (at[left] + 1) & (n_slots - 1), values[left]
    return slots


class StringBytes:
    """The UTF-8 bytes of strings and a hash table over them; code 0 is the empty string.

    ends: int64; string i is `arena[ends[i - 1]:ends[i]]`. One thread at a time.
    """

    def __init__(self) -> None:
        self.arena: NDArray[np.uint8] = np.empty(1 << 12, dtype=np.uint8)
        self.ends: NDArray[np.int64] = np.zeros(256, dtype=np.int64)
        self._slots: NDArray[np.int64] = np.zeros(512, dtype=np.int64)
        self._size: NDArray[np.int64] = np.ones(1, dtype=np.int64)
        # The seed keeps senders from choosing strings that collide; codes do not depend on it.
        self._seed = np.uint64(secrets.randbits(64))

    def __len__(self) -> int:
        return int(self._size[0])

    def text(self, code: int) -> str:
        return self.arena[self.ends[code - 1] if code else 0 : self.ends[code]].tobytes().decode()

    def texts(self, first: int) -> list[str]:
        """The strings from code `first` (at least 1) on."""
        start = int(self.ends[first - 1])
        data = self.arena[start : self.ends[len(self) - 1]].tobytes()
        ends = (self.ends[first - 1 : len(self)] - start).tolist()
        return [data[a:b].decode() for a, b in pairwise(ends)]

    def add(
        self,
        rows: NDArray[np.int64],
        offsets: NDArray[np.int64],
        data: NDArray[np.uint8],
        counts: NDArray[np.int64],
    ) -> NDArray[np.int32]:
        """Codes of the labels of checked canonical label sets, int32 (n_labels, 2); new strings are added."""
        codes = np.empty(2 * int(counts.sum()), dtype=np.int32)
        done = 0
        while True:
            done = kernels.intern_labels(
                rows,
                offsets,
                data,
                counts,
                done,
                codes,
                self._slots,
                self.ends,
                self.arena,
                self._size,
                self._seed,
            )
            if done == len(rows):
                return codes.reshape(-1, 2)
            # No single string is longer than the bytes at hand.
            self._grow(int(offsets[rows[done] + 1] - offsets[rows[done]]))

    def _grow(self, room: int) -> None:
        used = int(self.ends[len(self) - 1])
        if used + room > len(self.arena):
            arena = np.empty(max(used + room, len(self.arena) * 3 // 2), dtype=np.uint8)
            arena[:used] = self.arena[:used]
            self.arena = arena
        if len(self) + 1 >= len(self.ends):
            ends = np.zeros(len(self.ends) * 3 // 2, dtype=np.int64)
            ends[: len(self)] = self.ends[: len(self)]
            self.ends = ends
        if 2 * (len(self) + 1) >= len(self._slots):
            taken = self._slots[self._slots != 0]
            self._slots = placed(taken >> 32, taken, 2 * len(self._slots))
