"""Rows with equal labels are one series, as long as they never have a sample at the same step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.kernels.match import collapse_rows
from query.engine.labeling import METADATA_LABELS, Rows, blank, number
from query.engine.values import EvalError, RangeVector, Vector

_SAME_LABELS = "vector cannot contain metrics with the same labelset"


def collapse(
    values: NDArray[np.float64], present: NDArray[np.bool_], group: Rows, n_groups: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], tuple[int, int] | None]:
    """Lay the rows of each group on top of one another.

    Returns values and presence, (n_groups, n_steps), and (step, group) of the first step at which two rows of one
    group are present, or None.
    """
    n_steps = values.shape[1]
    out, out_present = np.zeros((n_groups, n_steps)), np.zeros((n_groups, n_steps), dtype=np.bool_)
    conflict = np.array([n_steps, -1], dtype=np.int64)
    collapse_rows(values, present, group, out, out_present, conflict)
    return out, out_present, None if conflict[1] < 0 else (int(conflict[0]), int(conflict[1]))


def merge_rows(vector: Vector) -> Vector:
    """Make one row of the rows that have equal labels.

    Raises:
        EvalError: two of them have a sample at the same step.
    """
    ids, firsts = number(vector.labels)
    if len(firsts) == len(ids):
        return vector
    values, present, conflict = collapse(vector.values, vector.present, ids, len(firsts))
    if conflict is not None:
        raise EvalError(_SAME_LABELS)
    # Whether the name goes is for the row that comes first in time to say.
    n_steps = vector.present.shape[1]
    begins = np.where(vector.present.any(axis=1), vector.present.argmax(axis=1), n_steps)
    by_time = np.lexsort((begins, ids))
    leaders = by_time[np.searchsorted(ids[by_time], np.arange(len(firsts)))]
    return Vector(vector.labels.take(firsts), values, present, vector.drop_name[leaders])


def settle(vector: Vector) -> Vector:
    """The final form of a vector: names removed, equal rows merged, rows without a sample left out."""
    seen = vector.present.any(axis=1)
    if not seen.all():
        rows = np.flatnonzero(seen)
        vector = Vector(
            vector.labels.take(rows), vector.values[rows], vector.present[rows], vector.drop_name[rows]
        )
    labels = blank(vector.labels, METADATA_LABELS, vector.drop_name)
    kept = np.zeros(len(labels), dtype=np.bool_)
    return merge_rows(Vector(labels, vector.values, vector.present, kept))


def cut_windows(value: RangeVector) -> RangeVector:
    """A range vector at a single step with the samples of its window only, series without any left out."""
    end = int(value.ends[0])
    inside = (value.timestamps > end - value.range_ms) & (value.timestamps <= end)
    before = np.concatenate((np.zeros(1, np.int64), np.cumsum(inside, dtype=np.int64)))
    offsets = before[value.offsets]
    rows = np.flatnonzero(np.diff(offsets))
    labels = blank(value.labels.take(rows), METADATA_LABELS, value.drop_name[rows])
    if len(number(labels)[1]) < len(labels):
        raise EvalError(_SAME_LABELS)
    return RangeVector(
        labels,
        np.append(offsets[rows], offsets[-1:]),
        value.timestamps[inside],
        value.values[inside],
        value.ends,
        value.range_ms,
        np.zeros(len(rows), dtype=np.bool_),
    )
