"""The head of a partition: samples that are in no segment yet, in order of arrival."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.kernels import head as kernels
from common.lasting import lasting_zeros

_GROWTH = 4
_LEAST_ROOM = 1024
_SCAN_FRACTION = 16
"""A read of more than one in so many series scans the head instead of following chains."""
_SAMPLES_FOUND = 1024
"""Samples of a series for which there is room at first: all of the head would be much memory for a few of them."""
BLOCK_SAMPLES = 4096
"""The times of so many samples are summed up, for reads to know which part of the head they need."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadView:
    """The head as it was at some moment; columns of (n_samples,).

    snos: uint32. timestamps: int64, ms. value_bits: uint64. previous: uint32, the series' sample before, or NONE.
    bounds: int64 (2, n_blocks), earliest and latest time of each whole block of BLOCK_SAMPLES.
    """

    snos: NDArray[np.uint32]
    timestamps: NDArray[np.int64]
    value_bits: NDArray[np.uint64]
    previous: NDArray[np.uint32]
    bounds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.snos)

    def part(self, min_time: int, max_time: int) -> tuple[int, int]:
        """Positions [first, last) outside of which no sample has a time in the closed range.

        Samples arrive more or less in the order of their times, so the last minutes are in little of the head.
        """
        earliest, latest = self.bounds
        blocks = ((latest >= min_time) & (earliest <= max_time)).nonzero()[0]
        n_whole = earliest.size * BLOCK_SAMPLES
        first = int(blocks[0]) * BLOCK_SAMPLES if blocks.size else n_whole
        if len(self) > n_whole:
            return first, len(self)
        return first, (int(blocks[-1]) + 1) * BLOCK_SAMPLES if blocks.size else first


class SampleBuffer:
    """Growable columns of samples, to which is only added; views of them stay valid, for growing copies."""

    __slots__ = ("_bounds", "previous", "size", "snos", "timestamps", "value_bits")

    def __init__(self, room: int = _LEAST_ROOM) -> None:
        room = max(room, _LEAST_ROOM)
        self.size = 0
        self.snos: NDArray[np.uint32] = lasting_zeros(room, np.uint32)
        self.timestamps: NDArray[np.int64] = lasting_zeros(room, np.int64)
        self.value_bits: NDArray[np.uint64] = lasting_zeros(room, np.uint64)
        self.previous: NDArray[np.uint32] = lasting_zeros(room, np.uint32)
        self._bounds: NDArray[np.int64] = np.empty((2, 0), dtype=np.int64)

    def reserve(self, n_samples: int) -> None:
        """Make room for `n_samples` more."""
        if self.size + n_samples > len(self.snos):
            # Room that is not used takes no memory.
            room = max(self.size + n_samples, len(self.snos) * _GROWTH)
            self.snos = _grown(self.snos, self.size, room)
            self.timestamps = _grown(self.timestamps, self.size, room)
            self.value_bits = _grown(self.value_bits, self.size, room)
            self.previous = _grown(self.previous, self.size, room)

    def view(self) -> HeadView:
        """What is there now. One thread at a time."""
        n = self.size
        done, whole = self._bounds.shape[1], n // BLOCK_SAMPLES
        if whole > done:
            new = self.timestamps[done * BLOCK_SAMPLES : whole * BLOCK_SAMPLES].reshape(-1, BLOCK_SAMPLES)
            self._bounds = np.concatenate((self._bounds, (new.min(axis=1), new.max(axis=1))), axis=1)
        return HeadView(self.snos[:n], self.timestamps[:n], self.value_bits[:n], self.previous[:n], self._bounds)


def _grown(column: NDArray[Any], size: int, room: int) -> NDArray[Any]:
    grown = lasting_zeros(room, column.dtype)
    grown[:size] = column[:size]
    return grown


class HeadReader:
    """Samples of some series from a view of the head: first `count`, then `collect`."""

    def __init__(
        self, view: HeadView, tails: NDArray[np.uint32], n_series: int, min_time: int, max_time: int
    ) -> None:
        self._view = view
        self._tails = tails
        self._range = min_time, max_time
        self._part = view.part(min_time, max_time)
        self.scans = len(tails) * _SCAN_FRACTION > n_series
        """Whether many series are read: only then it is looked at which row a series has."""
        self._found: NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)

    def count(self, row_of_sno: NDArray[np.int32], first_row: int) -> NDArray[np.int64]:
        """Number of samples of each row, int64 (n_rows,). row_of_sno may count its rows from `first_row`."""
        first, last = self._part
        n_before = first_row if self.scans else 0
        counts = np.zeros(n_before + len(self._tails), dtype=np.int64)
        if first < last and self.scans:
            nothing = np.zeros(0, dtype=np.int64)
            self._scan(row_of_sno, True, counts, nothing, nothing, nothing.view(np.uint64))
        elif first < last:
            room = min(last - first, len(self._tails) * _SAMPLES_FOUND)
            n_found = self._find(counts, room)
            if n_found > room:
                counts[:] = 0
                self._find(counts, n_found)
        return counts[n_before:]

    def _find(self, counts: NDArray[np.int64], room: int) -> int:
        view, found = self._view, np.empty(room, dtype=np.uint64)
        columns = view.previous, self._part[0], view.timestamps
        n_found = int(kernels.find_in_chains(self._tails, *columns, *self._range, counts, found))
        self._found = found[:n_found]
        return n_found

    def collect(
        self,
        row_of_sno: NDArray[np.int32],
        first_row: int,
        cursor: NDArray[np.int64],
        timestamps: NDArray[np.int64],
        value_bits: NDArray[np.uint64],
    ) -> None:
        """Put the samples at cursor[first_row:], which moves on."""
        view, (first, last) = self._view, self._part
        if first < last and self.scans:
            self._scan(row_of_sno, False, np.zeros(0, dtype=np.int64), cursor, timestamps, value_bits)
        elif len(self._found):
            places = cursor[first_row : first_row + len(self._tails)]
            kernels.put_found(self._found, view.timestamps, view.value_bits, places, timestamps, value_bits)

    def _scan(
        self,
        row_of_sno: NDArray[np.int32],
        counting: bool,
        counts: NDArray[np.int64],
        cursor: NDArray[np.int64],
        timestamps: NDArray[np.int64],
        value_bits: NDArray[np.uint64],
    ) -> None:
        view, part = self._view, slice(*self._part)
        columns = view.snos[part], view.timestamps[part], view.value_bits[part]
        rest = *self._range, counting, counts, cursor, timestamps, value_bits
        kernels.collect_scan(row_of_sno, *columns, *rest)
