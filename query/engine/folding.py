"""Folds of groups: sum, avg, count, group, min, max, stddev, stdvar; whole or from parts.

    rows ──► fold() ──► Folded ──► finished() ──► values
                          ▲ │
                          └─┴ merge()    with what others have folded of the same groups

A result is the same whatever the order of the rows and however they were spread over parts:
- count, group, min and max are exact; of two zeros the negative one is the smaller.
- A sum is kept as two floats and rounded once. That is exact as long as the values of a group are multiples of
  some 2^q with n times the sum of |v| below 2^(106 + q), so for floats of 53 bits that differ by no more than a
  factor of 2^53 / n^2. Beyond that, and for variances, the last of about 100 bits depend on the order, which
  rounding to 53 hides in all but about one of 2^40 cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.kernels.aggregate import AVG, COUNT, MAX, MIN, SCALE, SUM, fold_groups, spread_groups
from query.engine import doubles
from query.engine.budget import Budget
from query.engine.labeling import Rows
from query.engine.values import Vector

Floats = NDArray[np.float64]

COLUMNS = {"sum": 3, "avg": 4, "count": 1, "group": 1, "min": 1, "max": 1, "stddev": 5, "stdvar": 5}
"""The operators, and how many numbers the state of each has."""
_FOLDS = {"sum": SUM, "avg": AVG, "count": COUNT, "group": COUNT, "min": MIN, "max": MAX}


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """State of groups, arrays (n_groups, n_steps); the columns mean nothing where not present.

    sum: total, what it lacks, 1.0 where both are times SCALE. avg: these and the count. count, group: the count.
    min, max: the value. stddev, stdvar: the count, the mean and the sum of squared differences to it, a pair each.
    """

    op: str
    present: NDArray[np.bool_]
    columns: tuple[Floats, ...]


def fold(op: str, vector: Vector, group: Rows, n_groups: int, budget: Budget) -> Folded:
    """The state of each group; group: int64 (n_series,)."""
    n_steps = vector.values.shape[1]
    if op in ("stddev", "stdvar"):
        return _spread(op, vector, group, n_groups, budget)
    which = _FOLDS[op]

    def state(*used_by: int) -> Floats:
        return np.zeros((n_groups if which in used_by else 0, n_steps))

    total, error, count = state(SUM, AVG, MIN, MAX), state(SUM, AVG), np.zeros((n_groups, n_steps))
    scaled = state(SUM, AVG).astype(np.bool_)
    for rows in budget.chunks(len(group), n_steps):
        fold_groups(which, vector.values[rows], vector.present[rows], group[rows], total, error, count, scaled)
    columns: tuple[Floats, ...] = (total, error, scaled.astype(np.float64)) if which in (SUM, AVG) else (total,)
    if which == AVG:
        columns = (*columns, count)
    elif which == COUNT:
        columns = (count,)
    return Folded(op, count > 0.0, columns)


def _spread(op: str, vector: Vector, group: Rows, n_groups: int, budget: Budget) -> Folded:
    n_steps = vector.values.shape[1]
    states = tuple(np.zeros((n_groups, n_steps)) for _ in range(6))
    for rows in budget.chunks(len(group), n_steps):
        spread_groups(vector.values[rows], vector.present[rows], group[rows], *states)
    count, pivot, *sums = states
    with np.errstate(all="ignore"):
        total, squares = doubles.two_sum(sums[0], sums[1]), doubles.two_sum(sums[2], sums[3])
        mean = doubles.add((pivot, np.zeros_like(pivot)), doubles.divide(total, count))
        spread = doubles.subtract(squares, doubles.divide(doubles.multiply(total, total), count))
        # What is not finite is the answer already.
        odd = ~np.isfinite(sums[2])
        high, low = np.where(odd, sums[2], spread[0]), np.where(odd, 0.0, spread[1])
    return Folded(op, count > 0.0, (count, *mean, high, low))


def nothing(op: str, n_groups: int, n_steps: int) -> Folded:
    """The state of groups without members."""
    shape = (n_groups, n_steps)
    return Folded(op, np.zeros(shape, np.bool_), tuple(np.zeros(shape) for _ in range(COLUMNS[op])))


def merge(into: Folded, rows: Rows, part: Folded) -> None:
    """Add a part to groups: its group i is into's group rows[i], each of which is there once."""
    mine, theirs = into.present[rows], part.present
    columns = tuple(column[rows] for column in into.columns)
    with np.errstate(all="ignore"):
        both = _merged(into.op, columns, part.columns)
    for column, old, new, joined in zip(into.columns, columns, part.columns, both, strict=True):
        column[rows] = np.where(mine & theirs, joined, np.where(theirs, new, old))
    into.present[rows] = mine | theirs


def _merged(op: str, a: tuple[Floats, ...], b: tuple[Floats, ...]) -> tuple[Floats, ...]:
    match op:
        case "count" | "group":
            return (a[0] + b[0],)
        case "min" | "max":
            return (_extreme(op, a[0], b[0]),)
        case "sum":
            return _sums_merged(a, b)
        case "avg":
            return (*_sums_merged(a[:3], b[:3]), a[3] + b[3])
    return _spreads_merged(a, b)


def _extreme(op: str, a: Floats, b: Floats) -> Floats:
    """fmin and fmax leave open which zero they take."""
    take_b = (b < a) if op == "min" else (b > a)
    zeros = (a == 0.0) & (b == 0.0) & (np.signbit(b) == (op == "min"))
    return np.where(take_b | zeros | np.isnan(a), b, a)


def _sums_merged(a: tuple[Floats, ...], b: tuple[Floats, ...]) -> tuple[Floats, Floats, Floats]:
    def times(part: tuple[Floats, ...], scaled: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        factor = np.where(scaled & (part[2] == 0.0), SCALE, 1.0)
        return part[0] * factor, part[1] * factor

    overflows = np.isinf(a[0] + b[0]) & np.isfinite(a[0]) & np.isfinite(b[0])
    scaled = (a[2] != 0.0) | (b[2] != 0.0) | overflows
    (a_total, a_error), (b_total, b_error) = times(a, scaled), times(b, scaled)
    total, lost = doubles.two_sum(a_total, b_total)
    return total, np.where(np.isinf(total), 0.0, lost + (a_error + b_error)), scaled.astype(np.float64)


def _spreads_merged(a: tuple[Floats, ...], b: tuple[Floats, ...]) -> tuple[Floats, ...]:
    """Chan, Golub and LeVeque, Updating formulae (1979)."""
    count = a[0] + b[0]
    apart = doubles.subtract((b[1], b[2]), (a[1], a[2]))
    weight = doubles.two_product(a[0], b[0])
    between = doubles.divide(doubles.multiply(doubles.multiply(apart, apart), weight), count)
    share = doubles.divide(doubles.multiply(apart, (b[0], np.zeros_like(b[0]))), count)
    mean = doubles.add((a[1], a[2]), share)
    plain = a[3] + b[3] + np.where(np.isnan(between[0]), np.inf, between[0])
    high, low = doubles.add(doubles.add((a[3], a[4]), (b[3], b[4])), between)
    odd = ~np.isfinite(plain)
    return count, *mean, np.where(odd, plain, high), np.where(odd, 0.0, low)


def finished(folded: Folded) -> tuple[Floats, NDArray[np.bool_]]:
    """The results, (n_groups, n_steps), and where there are any."""
    columns, present = folded.columns, folded.present
    with np.errstate(all="ignore"):
        match folded.op:
            case "sum":
                total, error, scaled = columns
                values = _unscaled(total + error, scaled)
            case "avg":
                total, error, scaled, count = columns
                # The sum as rounded and the rest do not depend on how the two came about.
                high, low = doubles.two_sum(total, error)
                low = np.where(np.isfinite(high), low, 0.0)
                values = _unscaled(high / count + low / count, scaled)
            case "group":
                values = present.astype(np.float64)
            case "stddev" | "stdvar":
                values = np.maximum(columns[3] + columns[4], 0.0) / columns[0]
                if folded.op == "stddev":
                    np.sqrt(values, out=values)
            case _:
                values = columns[0]
    return values, present


def _unscaled(values: Floats, scaled: Floats) -> Floats:
    return np.where(scaled != 0.0, values / SCALE, values) if scaled.any() else values
