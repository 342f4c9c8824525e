"""Native histograms in windows of time: where a window begins and ends, counter resets, rates.

Source: Prometheus' `promql/functions.go` (histogramRate, instantValue) and `FloatHistogram.DetectReset`.
"""

from __future__ import annotations

import numpy as np

from common.kernels.jit import device, kernel
from common.kernels.native_core import (
    AT,
    BOUND_AT,
    BOUNDS,
    BUCKETS,
    COUNT,
    GAUGE,
    HINT,
    INCOMPATIBLE,
    KEYS,
    NOT_RESET,
    RECONCILED,
    RESET,
    SCHEMA,
    TABLE,
    THRESHOLD,
    ZEROS,
    absorb,
    accumulator,
    bound,
    coarsen_sum,
    emit,
    index_of,
    reduced,
    start,
    zero_count,
)
from common.kernels.native_decode import CUSTOM
from common.kernels.window import DELTA, IDELTA, IRATE, stretched

MIXED_SCHEMAS, SUBTRACTED, ADDED, NOT_COUNTER, NOT_GAUGE = 1, 2, 4, 8, 16
"""What can be said of a window: incompatible buckets, bounds reconciled by -, by +, hints that do not fit."""


@kernel("void(int64[::1], int64[::1], int64[::1], int64, int64[:, ::1], int64[:, ::1])")
def window_edges(offsets, timestamps, ends, range_ms, firsts, stops):
    """Samples of series i in the window of step k are at [firsts[i, k], stops[i, k]); ends never descends."""
    for row in range(firsts.shape[0]):
        low = high = offsets[row]
        for step in range(firsts.shape[1]):
            while high < offsets[row + 1] and timestamps[high] <= ends[step]:
                high += 1
            while low < high and timestamps[low] <= ends[step] - range_ms:
                low += 1
            firsts[row, step] = low
            stops[row, step] = high


@device
def count_below(table, row, at, limit):
    """(counts of custom buckets from `at` on that end at or before the limit, what follows)."""
    begin = table[BOUND_AT][row]
    n = table[BOUND_AT][row + 1] - begin
    total = 0.0
    while at < table[AT][row + 1]:
        key = table[KEYS][at]
        upper = table[BOUNDS][begin + key] if key < n else np.inf
        if upper > limit:
            break
        total += table[BUCKETS][at]
        at += 1
    return total, at


@device
def is_custom_reset(table, before, after):
    """Whether a count between bounds that both have went down."""
    i, stop_i = table[BOUND_AT][before], table[BOUND_AT][before + 1]
    j, stop_j = table[BOUND_AT][after], table[BOUND_AT][after + 1]
    at, at_after = table[AT][before], table[AT][after]
    while i <= stop_i and j <= stop_j:
        a = table[BOUNDS][i] if i < stop_i else np.inf
        b = table[BOUNDS][j] if j < stop_j else np.inf
        if a == b:
            old, at = count_below(table, before, at, a)
            new, at_after = count_below(table, after, at_after, a)
            if new < old:
                return True
        i += a <= b
        j += b <= a
    return False


@device
def is_reset(table, before, after):
    hint = table[HINT][after]
    if hint in (RESET, NOT_RESET):
        return hint == RESET
    if table[COUNT][after] < table[COUNT][before]:
        return True
    schema, old_schema = np.int64(table[SCHEMA][after]), np.int64(table[SCHEMA][before])
    if schema == CUSTOM:
        return old_schema != CUSTOM or is_custom_reset(table, before, after)
    if schema > old_schema or table[THRESHOLD][after] < table[THRESHOLD][before]:
        return True
    threshold = table[THRESHOLD][after]
    at, stop = table[AT][before], table[AT][before + 1]
    if threshold != table[THRESHOLD][before]:
        zeros, wider = zero_count(
            table[KEYS], table[BUCKETS], at, stop, old_schema, table[ZEROS][before], threshold
        )
        if wider != threshold or table[ZEROS][after] < zeros:
            return True
    elif table[ZEROS][after] < table[ZEROS][before]:
        return True
    steps = old_schema - schema
    current, end = table[AT][after], table[AT][after + 1]
    while at < stop:
        key = reduced(table[KEYS][at], steps) if steps else table[KEYS][at]
        old = 0.0
        while at < stop and (reduced(table[KEYS][at], steps) if steps else table[KEYS][at]) == key:
            old += table[BUCKETS][at]
            at += 1
        if threshold > 0.0 and bound(index_of(key), schema) <= threshold:
            continue
        while current < end and table[KEYS][current] < key:
            current += 1
        if current < end and table[KEYS][current] == key:
            if table[BUCKETS][current] < old:
                return True
        elif old != 0.0:
            return True
    return False


@kernel(f"void({TABLE}, int64[::1], int64[::1], boolean[::1])")
def find_resets(table, before, after, out):
    """Whether a counter was reset between histograms before[i] and after[i]."""
    for i in range(len(out)):
        out[i] = is_reset(table, before[i], after[i])


@device
def is_custom(table, row):
    return table[SCHEMA][row] == CUSTOM


@device
def look_through(op, table, rows, resets, first, last):
    """(what is to be said of a window before anything is added, the coarsest schema in it)."""
    counter = op != DELTA
    skipped = counter and resets[first + 1]
    # A first sample before a reset counts for nothing, and its layout does not either.
    origin = rows[first + 1] if skipped else rows[first]
    custom = is_custom(table, origin)
    flags = 0
    gauges = int(table[HINT][rows[first]] == GAUGE) + int(table[HINT][rows[last]] == GAUGE)
    if counter and gauges > 0:
        flags |= NOT_COUNTER
    if is_custom(table, rows[last]) != custom:
        return flags | MIXED_SCHEMAS, 0
    schema = min(np.int64(table[SCHEMA][origin]), np.int64(table[SCHEMA][rows[last]]))
    if not counter:
        return flags | (NOT_GAUGE if gauges < 2 else 0), schema
    for at in range(first + 1, last):
        if is_custom(table, rows[at]) != custom:
            return MIXED_SCHEMAS, 0
        if table[HINT][rows[at]] == GAUGE:
            flags |= NOT_COUNTER
        schema = min(schema, np.int64(table[SCHEMA][rows[at]]))
    return flags, schema


@device
def subtract(acc, table, row, layout_only):
    said = absorb(acc, table, row, -1.0, layout_only)
    return (MIXED_SCHEMAS if said & INCOMPATIBLE else 0) | (SUBTRACTED if said & RECONCILED else 0)


@device
def difference(op, acc, table, rows, resets, first, last):
    """Let the sum be the increase over a window; returns what is to be said of it."""
    flags, schema = look_through(op, table, rows, resets, first, last)
    if flags & MIXED_SCHEMAS:
        return flags
    counter = op != DELTA
    start(acc, table, rows[last])
    if schema != CUSTOM:
        coarsen_sum(acc, schema)
    skipped = counter and resets[first + 1]
    flags |= subtract(acc, table, rows[first + 1] if skipped else rows[first], skipped)
    if counter:
        for at in range(first + 2, last + 1):
            if resets[at]:
                said = absorb(acc, table, rows[at - 1], 1.0, False)
                flags |= ADDED if said & RECONCILED else 0
    return flags


@device
def last_difference(op, acc, table, before, after, was_reset):
    """Let the sum be the increase between two histograms; returns what is to be said of it."""
    gauges = int(table[HINT][before] == GAUGE) + int(table[HINT][after] == GAUGE)
    flags = 0
    if op == IRATE and gauges > 0:
        flags = NOT_COUNTER
    if op == IDELTA and gauges < 2:
        flags = NOT_GAUGE
    start(acc, table, after)
    if op == IDELTA or not was_reset:
        flags |= subtract(acc, table, before, False)
    return flags


@device
def stretch(acc, factor):
    acc[1][1:4] *= factor
    acc[3][: acc[0][1]] *= factor


@kernel(
    f"void(int64, {TABLE}, int64[::1], boolean[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64,"
    f" float64, {TABLE}, uint8[::1])"
)
def rates(op, table, rows, resets, timestamps, firsts, stops, ends, range_ms, range_s, out, flags):
    """Row i of `out` is rate, increase, delta, irate or idelta of the samples [firsts[i], stops[i]), two or more.

    rows: int64 (n_samples,), histogram of each sample; resets: bool (n_samples,), whether one is just before it.
    Rows whose flags have MIXED_SCHEMAS mean nothing.
    """
    width = widest = 0
    for i in range(len(firsts)):
        size = 0
        for at in range(firsts[i], stops[i]):
            size += table[AT][rows[at] + 1] - table[AT][rows[at]]
            widest = max(widest, table[BOUND_AT][rows[at] + 1] - table[BOUND_AT][rows[at]])
        width = max(width, size)
    acc = accumulator(width, widest)
    for i in range(len(firsts)):
        first, last = firsts[i], stops[i] - 1
        if op >= IRATE:
            flags[i] = last_difference(op, acc, table, rows[last - 1], rows[last], resets[last])
        else:
            flags[i] = difference(op, acc, table, rows, resets, first, last)
        if flags[i] & MIXED_SCHEMAS:
            acc[0][:] = 0
        elif op == IRATE:
            seconds = (timestamps[last] - timestamps[last - 1]) / 1000.0
            acc[1][1:4] /= seconds
            acc[3][: acc[0][1]] /= seconds
        elif op <= DELTA:
            factor = stretched(
                op,
                acc[1][2],
                table[COUNT][rows[first]],
                timestamps[first] - (ends[i] - range_ms),
                ends[i] - timestamps[last],
                timestamps[last] - timestamps[first],
                last - first,
                range_s,
            )
            stretch(acc, factor)
        acc[0][3] = GAUGE
        emit(acc, False, out, i)
