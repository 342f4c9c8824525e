"""Aggregation over groups of rows, step by step."""

from __future__ import annotations

import math

import numpy as np

from common.kernels.jit import device, kernel

SUM, AVG, COUNT, MIN, MAX, STDVAR = range(6)
TOP, BOTTOM, FIRST = range(3)

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
def _add_to_mean(k, g, value, total, error, mean, count, incremental):
    """One more value of an average whose sum has overflowed or would: the mean is moved instead."""
    n = count[g, k]
    if not incremental[g, k]:
        incremental[g, k] = True
        mean[g, k] = total[g, k] / (n - 1.0)
        error[g, k] /= n - 1.0
    share = (n - 1.0) / n
    old = share * mean[g, k]
    moved = old + value / n
    error[g, k] = _compensate(old, value / n, moved, share * error[g, k])
    mean[g, k] = moved


@kernel(
    "void(int64, float64[:, ::1], boolean[:, ::1], int64[::1], float64[:, ::1], float64[:, ::1], float64[:, ::1],"
    " float64[:, ::1], boolean[:, ::1])"
)
def fold_groups(op, values, present, group, total, error, mean, count, incremental):
    """Add rows to their groups' states, in order; may be called again with more rows.

    values, present: (n, n_steps). group: (n,). The states are (n_groups, n_steps) and start at zero:
    count for all; total for all but COUNT; error for SUM and AVG; mean for AVG and STDVAR; incremental for AVG.
    A state that the operation does not use may have no rows. STDVAR's total is the sum of squared differences.
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
                if op == STDVAR:
                    mean[g, k] = value
                    total[g, k] = 0.0 if math.isfinite(value) else np.nan
                else:
                    total[g, k] = value
            elif op in (SUM, AVG):
                moved = total[g, k] + value
                if op == AVG and (incremental[g, k] or math.isinf(moved)):
                    _add_to_mean(k, g, value, total, error, mean, count, incremental)
                else:
                    error[g, k] = _compensate(total[g, k], value, moved, error[g, k])
                    total[g, k] = moved
            elif op == MIN:
                if total[g, k] > value or math.isnan(total[g, k]):
                    total[g, k] = value
            elif op == MAX:
                if total[g, k] < value or math.isnan(total[g, k]):
                    total[g, k] = value
            else:
                delta = value - mean[g, k]
                mean[g, k] += delta / count[g, k]
                total[g, k] += delta * (value - mean[g, k])


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


@kernel("void(int64, float64[:, ::1], boolean[:, ::1], int64[::1], int64[::1], int64[::1], boolean[:, ::1])")
def pick_rows(which, values, present, order, starts, limits, out):
    """Mark `limits[k]` rows of each group at step k: the highest (TOP), lowest (BOTTOM) or the first ones (FIRST).

    order: rows by group; those of group g are order[starts[g] : starts[g + 1]], ascending. out starts false.
    NaN is picked only when nothing else is left. Which of equal values stay is settled as in Prometheus: a binary
    heap whose top is replaced by strictly better values only.
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
    sign = -1.0 if which == BOTTOM else 1.0
    for g in range(len(starts) - 1):
        for base in range(0, n_steps, block):
            sizes[:] = 0
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
                            keys[b, 0] = key
                            rows[b, 0] = row
                            _sift_down(keys[b], rows[b], sizes[b])
            for b in range(last):
                for at in range(sizes[b]):
                    out[rows[b, at], base + b] = True


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
def _ranked(sample, rank, nans, size):
    """The value of this rank among `nans` NaNs, which come first, and sample[:size]."""
    if rank < nans:
        return np.nan
    _place(sample, rank - nans, size)
    return sample[rank - nans]


@device
def _quantile(q, sample, nans, size):
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
    return _ranked(sample, lower, nans, size) * (1.0 - weight) + _ranked(sample, upper, nans, size) * weight


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
            for at in range(starts[g], starts[g + 1]):
                row = order[at]
                if present[row, k]:
                    if math.isnan(values[row, k]):
                        nans += 1
                    else:
                        sample[size] = values[row, k]
                        size += 1
            out_present[g, k] = size + nans > 0
            if size + nans > 0:
                out[g, k] = _quantile(quantiles[k], sample, nans, size)
