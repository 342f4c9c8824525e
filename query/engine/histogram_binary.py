"""Binary operators where a side is a native histogram, pair by pair of cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.histograms import Histograms
from query.engine.cells import HistogramPool
from query.engine.labeling import Rows
from query.engine.native.ops import add, divide, equal, scale, trim
from query.engine.values import Annotations, Vector
from query.promql.ast import Binary

TRIMS = ("</", ">/")
_NAMES = {"+": "addition", "-": "subtraction"}


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Rows of a vector, and the numbers of its histograms, from `HistogramPool.without_histograms`."""

    vector: Vector
    index: NDArray[np.int32] | None
    rows: Rows

    def cells(self) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int32]]:
        """Values, presence and histograms of the rows."""
        values, floats = self.vector.values[self.rows], self.vector.present[self.rows]
        if self.index is None:
            return values, floats, np.full(values.shape, -1, dtype=np.int32)
        index = self.index[self.rows]
        return values, floats | (index >= 0), index


def combine_histograms(
    node: Binary,
    left: Side,
    right: Side,
    values: NDArray[np.float64],
    present: NDArray[np.bool_],
    pool: HistogramPool,
    annotations: Annotations,
) -> None:
    """Put the results of all pairs with a histogram into `values` and `present`, (n_rows, n_steps)."""
    if left.index is None and right.index is None and node.op not in TRIMS:
        return
    left_values, left_there, left_index = left.cells()
    right_values, right_there, right_index = right.cells()
    there = left_there & right_there
    l_held, r_held = left_index >= 0, right_index >= 0
    work = _Work(node, values, present, pool, annotations)
    if node.op in TRIMS:
        work.incompatible(there & ~l_held & ~r_held, "float", "float")
    both = np.nonzero(there & l_held & r_held)
    if len(both[0]):
        work.two(both, left_index[both], right_index[both])
    for held, other, index, numbers, swapped in (
        (l_held, r_held, left_index, right_values, False),
        (r_held, l_held, right_index, left_values, True),
    ):
        one = np.nonzero(there & held & ~other)
        if len(one[0]):
            work.with_number(one, index[one], numbers[one], swapped=swapped)


Cells = tuple[NDArray[np.int64], ...]


class _Work:
    def __init__(
        self,
        node: Binary,
        values: NDArray[np.float64],
        present: NDArray[np.bool_],
        pool: HistogramPool,
        annotations: Annotations,
    ) -> None:
        self._node = node
        self._values = values
        self._present = present
        self._pool = pool
        self._annotations = annotations

    def incompatible(self, cells: NDArray[np.bool_], left: str, right: str) -> None:
        """Say that types do not go together, if there are such cells."""
        if cells.any():
            op = self._node.op
            message = f'incompatible sample types encountered for binary operator "{op}": {left} {op} {right}'
            self._annotations.info(message, self._node.span)

    def two(self, cells: Cells, left: NDArray[np.int32], right: NDArray[np.int32]) -> None:
        """Both sides are histograms."""
        op = self._node.op
        if op in _NAMES:
            result = add(self._taken(left), self._taken(right), 1.0 if op == "+" else -1.0)
            if result.incompatible.any():
                message = f"incompatible bucket layout encountered for binary operator {op}"
                self._annotations.warn(message, self._node.span)
            good = ~result.incompatible
            if (result.hint_clash & good).any():
                message = f"conflicting counter resets during histogram {_NAMES[op]}"
                self._annotations.warn(message, self._node.span)
            if (result.bounds_reconciled & good).any():
                message = f"mismatched custom buckets were reconciled during {_NAMES[op]}"
                self._annotations.info(message, self._node.span)
            self._put(cells, self._pool.add(result.rows), good)
        elif op in ("==", "!="):
            same = equal(self._taken(left), self._taken(right))
            kept = same if op == "==" else ~same
            if self._node.return_bool:
                self._put(cells, kept.astype(np.float64), np.ones_like(kept))
            else:
                self._put(cells, self._pool.add(self._taken(left)), kept)
        else:
            self.incompatible(np.ones(1, dtype=np.bool_), "histogram", "histogram")

    def with_number(
        self, cells: Cells, index: NDArray[np.int32], numbers: NDArray[np.float64], *, swapped: bool
    ) -> None:
        """One side, the right one if swapped, is a histogram, and the other a float."""
        op = self._node.op
        if op == "*":
            result = scale(self._taken(index), numbers)
        elif op == "/" and not swapped:
            result = divide(self._taken(index), numbers)
        elif op in TRIMS and not swapped:
            result = trim(self._taken(index), numbers, upper=op == "</")
        else:
            left, right = ("float", "histogram") if swapped else ("histogram", "float")
            self.incompatible(np.ones(1, dtype=np.bool_), left, right)
            return
        self._put(cells, self._pool.add(result), np.ones(len(index), dtype=np.bool_))

    def _taken(self, index: NDArray[np.int32]) -> Histograms:
        return self._pool.take(index.astype(np.int64))

    def _put(self, cells: Cells, results: NDArray[np.float64], kept: NDArray[np.bool_]) -> None:
        self._values[cells] = results
        self._present[cells] = kept
