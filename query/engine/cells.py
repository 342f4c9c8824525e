"""Native histograms among the floats of a query: a cell that holds one has a number of it in its bits.

A query keeps its histograms in one `HistogramPool`; in the matrices that are handed from operator to operator a
histogram is a NaN whose payload is its number. So whatever chooses, orders or merges cells treats histograms like
floats, and only what calculates has to tell them apart: it takes the floats with `without_histograms` and the
histograms with `HistogramPool.index`. Functions, and whoever gets the result, see `HistogramCells` instead.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from common.histograms import EncodedHistograms, Histograms, concatenate, decode, empty, take
from common.store import STALE_NAN_BITS
from query.engine.values import HistogramCells, RangeVector, Vector

_TAG = np.uint64(0x7FFA0000)
"""The upper half of the bits of a cell that holds a histogram: a quiet NaN that no arithmetic makes by itself."""
_32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_NAN_BITS = np.uint64(0x7FF8000000000001)

Table = TypeVar("Table", bound=Vector | RangeVector)


def floats_only(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values from outside, of which none looks like a histogram; changed in place."""
    bits = values.view(np.uint64)
    bits[(bits >> _32) == _TAG] = _NAN_BITS
    return values


class HistogramPool:
    """The histograms of one query, numbered from 0; it only grows."""

    def __init__(self) -> None:
        self._parts: list[Histograms] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def rows(self) -> Histograms:
        """All of them."""
        if len(self._parts) != 1:
            self._parts = [concatenate(self._parts) if self._parts else empty()]
        return self._parts[0]

    def take(self, numbers: NDArray[np.int64]) -> Histograms:
        return take(self.rows(), numbers)

    def add(self, rows: Histograms) -> NDArray[np.float64]:
        """Cells that hold these, (n,)."""
        numbers = np.arange(self._size, self._size + len(rows), dtype=np.uint64)
        self._parts.append(rows)
        self._size += len(rows)
        return (_TAG << _32 | numbers).view(np.float64)

    def decoded(self, values: NDArray[np.float64], encoded: EncodedHistograms) -> NDArray[np.float64]:
        """Samples with these histograms among them. Raises CorruptError."""
        cells = self.add(decode(encoded))
        values = values.copy()
        # Floats that look like histograms are NaN all the same.
        bits = values.view(np.uint64)
        bits[np.isnan(values) & (bits != np.uint64(STALE_NAN_BITS))] = _NAN_BITS
        values[encoded.positions] = cells
        return values

    def index(self, values: NDArray[np.float64]) -> NDArray[np.int32] | None:
        """Number of the histogram in each cell, of the shape of the values, -1 for floats; None if all are floats.

        Cells that are not present have to be left out by the caller.
        """
        if not self._size:
            return None
        bits = np.ascontiguousarray(values).view(np.uint64)
        held = (bits >> _32) == _TAG
        if not held.any():
            return None
        return np.where(held, (bits & _LOW).astype(np.int32), np.int32(-1))

    def unfolded(self, value: Table) -> Table:
        """The same with its histograms as `HistogramCells`."""
        index = self.index(value.values)
        if index is None:
            return value
        if isinstance(value, Vector):
            # There lies what was in the memory before: perhaps the histograms of another query.
            index[~value.present] = -1
            if not (index >= 0).any():
                return value
        cells = HistogramCells(index, self.rows())
        return replace(value, values=np.where(index >= 0, np.nan, value.values), histograms=cells)

    def folded(self, value: Table) -> Table:
        """The reverse of `unfolded`."""
        if value.histograms is None:
            return value
        cells = value.histograms
        held = cells.index >= 0
        values = value.values.copy()
        if self._parts and cells.rows is self._parts[0]:
            # They are of the pool: whoever chose among its histograms made no new ones.
            values[held] = (_TAG << _32 | cells.index[held].astype(np.uint64)).view(np.float64)
        else:
            values[held] = self.add(cells.rows)[cells.index[held]]
        return replace(value, values=values, histograms=None)

    def without_histograms(self, vector: Vector) -> tuple[Vector, NDArray[np.int32] | None]:
        """The floats of a vector, and `index`, with -1 also where nothing is present; None if all are floats."""
        index = self.index(vector.values)
        if index is None:
            return vector, None
        index[~vector.present] = -1
        held = index >= 0
        if not held.any():
            return vector, None
        return replace(vector, values=np.where(held, 0.0, vector.values), present=vector.present & ~held), index
