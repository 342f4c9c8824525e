"""Aggregation over groups of rows, step by step."""

from __future__ import annotations

import math

import numpy as np

from common.kernels.jit import device, kernel

SUM, AVG, COUNT, MIN, MAX = range(5)
TOP, BOTTOM, FIRST = range(3)
SCALE = 2.0**-64
"""Sums that would overflow are kept times this."""

_HEAP_CELLS = 1 << 18
"""Heap entries held at a time: more steps go in several passes over the rows."""


@device
def _compensate(total, added, moved, error):
    """Error of Neumaier's summation after `moved` = `total` + `added`."""
    if math.isinf(moved):
        return 0.0
    if abs(total) >= abs(added):
        return error + ((total - moved) + added)
    return error + ((added - moved) + total)


@device
def _replaces(op, value, best):
    """Whether a value is the new minimum or maximum; the sign of zero counts, so that order does not matter."""
    if math.isnan(best):
        return True
    if op == MIN:
        return value < best or (value == 0.0 and best == 0.0 and math.copysign(1.0, value) < 0.0)
    return value > best or (value == 0.0 and best == 0.0 and math.copysign(1.0, value) > 0.0)


@kernel(
    "void(int64, float64[:, ::1], boolean[:, ::1], int64[::1], float64[:, ::1], float64[:, ::1], float64[:, ::1],"
    " boolean[:, ::1])"
)
def fold_groups(op, values, present, group, total, error, count, scaled):
    """Add rows to their groups' states, in order; may be called again with more rows.

    values, present: (n, n_steps). group: (n,). The states are (n_groups, n_steps) and start at zero: count for
    all; total for all but COUNT; error and scaled for SUM and AVG. A state that is not used may have no rows.
    A sum is total + error, over SCALE where scaled, which begins when it would overflow.
    """
    for i in range(present.shape[0]):
        g = group[i]
        for k in range(present.shape[1]):
            if not present[i, k]:
                continue
            value = values[i, k]
            count[g, k] += 1.0
            if op == COUNT:
                continue
            if count[g, k] == 1.0:
                total[g, k] = value
            elif op in (SUM, AVG):
                if scaled[g, k]:
                    value *= SCALE
                moved = total[g, k] + value
                if math.isinf(moved) and math.isfinite(total[g, k]) and math.isfinite(value):
                    scaled[g, k] = True
                    total[g, k] *= SCALE
                    error[g, k] *= SCALE
                    value *= SCALE
                    moved = total[g, k] + value
                error[g, k] = _compensate(total[g, k], value, moved, error[g, k])
                total[g, k] = moved
            elif _replaces(op, value, total[g, k]):
                total[g, k] = value


@device
def _lost_by_sum(a, b, moved):
    """What `moved` = a + b is short of the sum, exactly (Knuth's TwoSum)."""
    part = moved - a
    return (a - (moved - part)) + (b - part)


@device
def _lost_by_square(a, square):
    """What `square` = a * a is short of the square, exactly (Dekker's product)."""
    far = 134217729.0 * a
    high = far - (far - a)
    low = a - high
    return ((high * high - square) + 2.0 * high * low) + low * low


@kernel(
    "void(float64[:, ::1], boolean[:, ::1], int64[::1], float64[:, ::1], float64[:, ::1], float64[:, ::1],"
    " float64[:, ::1], float64[:, ::1], float64[:, ::1])"
)
def spread_groups(values, present, group, count, pivot, total, error, squares, squares_error):
    """Add rows to what the variances of their groups are made of; otherwise as `fold_groups`.

    pivot: the first value. total + error: sum of the differences to it. squares + squares_error: of their squares;
    NaN once a value is not finite, infinite if a square was too large. Both sums have about 100 good bits.
    """
    for i in range(present.shape[0]):
        g = group[i]
        for k in range(present.shape[1]):
            if not present[i, k]:
                continue
            value = values[i, k]
            count[g, k] += 1.0
            if not math.isfinite(value):
                squares[g, k] = np.nan
            if count[g, k] == 1.0:
                pivot[g, k] = value
            if not math.isfinite(squares[g, k]):
                continue
            apart = value - pivot[g, k]
            square = apart * apart
            if math.isinf(square):
                squares[g, k] = np.inf
                continue
            rest = _lost_by_sum(value, -pivot[g, k], apart)
            moved = total[g, k] + apart
            error[g, k] += _lost_by_sum(total[g, k], apart, moved) + rest
            total[g, k] = moved
            rest = _lost_by_square(apart, square) + 2.0 * apart * rest
            moved = squares[g, k] + square
            if math.isinf(moved):
                squares[g, k] = np.inf
                continue
            squares_error[g, k] += _lost_by_sum(squares[g, k], square, moved) + rest
            squares[g, k] = moved


@device
def _before(a, b):
    return math.isnan(a) or a < b


@device
def _sift_down(keys, rows, size):
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        if child + 1 < size and _before(keys[child + 1], keys[child]):
            child += 1
        if not _before(keys[child], keys[at]):
            return
        keys[at], keys[child] = keys[child], keys[at]
        rows[at], rows[child] = rows[child], rows[at]
        at = child


@device
def _sift_up(keys, rows, at):
    while at > 0:
        parent = (at - 1) // 2
        if not _before(keys[at], keys[parent]):
            return
        keys[at], keys[parent] = keys[parent], keys[at]
        rows[at], rows[parent] = rows[parent], rows[at]
        at = parent


@device
def _alike(a, b):
    return a == b or (math.isnan(a) and math.isnan(b))


@kernel(
    "void(int64, float64[:, ::1], boolean[:, ::1], int64[::1], int64[::1], int64[::1], boolean[:, ::1],"
    " boolean[:, ::1], float64[:, ::1])"
)
def pick_rows(which, values, present, order, starts, limits, out, tied, tie):
    """Mark `limits[k]` rows of each group at step k: the highest (TOP), lowest (BOTTOM) or the first ones (FIRST).

    order: rows by group; those of group g are order[starts[g] : starts[g + 1]]. out, tied start false.
    NaN is picked only when nothing else is left. tied: bool (n_groups, n_steps): a row was left out that is as
    good as one that was picked, both with the value in `tie`; `settle_ties` decides which of them stay.
    """
    n_steps = present.shape[1]
    widest = 0
    for g in range(len(starts) - 1):
        widest = max(widest, starts[g + 1] - starts[g])
    room = 1
    for k in range(n_steps):
        room = max(room, min(limits[k], widest))
    block = max(1, min(n_steps, _HEAP_CELLS // room))
    keys = np.empty((block, room), dtype=np.float64)
    rows = np.empty((block, room), dtype=np.int64)
    sizes = np.empty(block, dtype=np.int64)
    # The best that was left out; it only gets better.
    lost = np.empty(block, dtype=np.float64)
    lost_any = np.empty(block, dtype=np.bool_)
    sign = -1.0 if which == BOTTOM else 1.0
    for g in range(len(starts) - 1):
        for base in range(0, n_steps, block):
            sizes[:] = 0
            lost_any[:] = False
            last = min(block, n_steps - base)
            for at in range(starts[g], starts[g + 1]):
                row = order[at]
                for b in range(last):
                    if not present[row, base + b]:
                        continue
                    limit = min(limits[base + b], starts[g + 1] - starts[g])
                    key = sign * values[row, base + b]
                    if sizes[b] < limit:
                        keys[b, sizes[b]] = key
                        rows[b, sizes[b]] = row
                        if which != FIRST:
                            _sift_up(keys[b], rows[b], sizes[b])
                        sizes[b] += 1
                    elif which != FIRST and limit > 0:
                        top = keys[b, 0]
                        if top < key or (math.isnan(top) and not math.isnan(key)):
                            lost[b] = top
                            lost_any[b] = True
                            keys[b, 0] = key
                            rows[b, 0] = row
                            _sift_down(keys[b], rows[b], sizes[b])
                        elif key == top or math.isnan(top):
                            lost[b] = key
                            lost_any[b] = True
            for b in range(last):
                if lost_any[b]:
                    tied[g, base + b] = _alike(lost[b], keys[b, 0])
                    tie[g, base + b] = sign * lost[b]
                for at in range(sizes[b]):
                    out[rows[b, at], base + b] = True


@kernel(
    "void(float64[:, ::1], boolean[:, ::1], int64[::1], int64[::1], boolean[:, ::1], float64[:, ::1],"
    " boolean[:, ::1])"
)
def settle_ties(values, present, order, starts, tied, tie, out):
    """Where rows are tied for the last places that `pick_rows` gave away, give these to the first in `order`.

    order, starts: as in `pick_rows`, with the rows of each group in the order that decides.
    """
    places = np.empty(present.shape[1], dtype=np.int64)
    for g in range(len(starts) - 1):
        places[:] = 0
        for at in range(starts[g], starts[g + 1]):
            row = order[at]
            for k in range(present.shape[1]):
                if tied[g, k] and out[row, k] and _alike(values[row, k], tie[g, k]):
                    places[k] += 1
        for at in range(starts[g], starts[g + 1]):
            row = order[at]
            for k in range(present.shape[1]):
                if tied[g, k] and present[row, k] and _alike(values[row, k], tie[g, k]):
                    out[row, k] = places[k] > 0
                    places[k] -= 1


@device
def _place(sample, rank, size):
    """Partition so that sample[rank] is the one that would be there if sample[:size] were sorted."""
    low = 0
    high = size - 1
    while low < high:
        pivot = sample[(low + high) // 2]
        i = low
        j = high
        while i <= j:
            while sample[i] < pivot:
                i += 1
            while pivot < sample[j]:
                j -= 1
            if i <= j:
                sample[i], sample[j] = sample[j], sample[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            return


@device
def _ranked(sample, rank, nans, size, negative_zeros):
    """The value of this rank among `nans` NaNs, which come first, and sample[:size].

    negative_zeros: how many of the sample are -0.0; these come before 0.0, in whatever order the rows are.
    """
    if rank < nans:
        return np.nan
    rank -= nans
    _place(sample, rank, size)
    if sample[rank] == 0.0 and negative_zeros > 0:
        for i in range(size):
            if sample[i] < 0.0:
                rank -= 1
        return -0.0 if rank < negative_zeros else 0.0
    return sample[rank]


@device
def _quantile(q, sample, nans, size, negative_zeros):
    if math.isnan(q):
        return np.nan
    if q < 0.0:
        return -np.inf
    if q > 1.0:
        return np.inf
    rank = q * (nans + size - 1)
    lower = math.floor(rank)
    upper = min(nans + size - 1, lower + 1)
    weight = rank - math.floor(rank)
    low = _ranked(sample, lower, nans, size, negative_zeros)
    high = _ranked(sample, upper, nans, size, negative_zeros)
    return low * (1.0 - weight) + high * weight


@kernel(
    "void(float64[::1], float64[:, ::1], boolean[:, ::1], int64[::1], int64[::1], float64[:, ::1],"
    " boolean[:, ::1])"
)
def group_quantiles(quantiles, values, present, order, starts, out, out_present):
    """Quantile quantiles[k] of each group at step k, interpolated linearly; NaN counts as the lowest value.

    order, starts: as in `pick_rows`. out, out_present: (n_groups, n_steps), all written.
    """
    widest = 0
    for g in range(len(starts) - 1):
        widest = max(widest, starts[g + 1] - starts[g])
    sample = np.empty(widest, dtype=np.float64)
    for g in range(len(starts) - 1):
        for k in range(present.shape[1]):
            size = 0
            nans = 0
            negative_zeros = 0
            for at in range(starts[g], starts[g + 1]):
                row = order[at]
                if present[row, k]:
                    value = values[row, k]
                    if math.isnan(value):
                        nans += 1
                    else:
                        sample[size] = value
                        size += 1
                        negative_zeros += value == 0.0 and math.copysign(1.0, value) < 0.0
            out_present[g, k] = size + nans > 0
            if size + nans > 0:
                out[g, k] = _quantile(quantiles[k], sample, nans, size, negative_zeros)
