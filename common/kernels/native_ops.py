"""Sums, comparison, trimming and buckets of native histograms, row by row (see `native_core` for tables)."""

from __future__ import annotations

import numpy as np

from common.kernels.jit import device, kernel
from common.kernels.native_core import (
    AT,
    BOUND_AT,
    BOUNDS,
    BUCKETS,
    CLASH,
    COUNT,
    GAUGE,
    HINT,
    INCOMPATIBLE,
    KEYS,
    NOT_RESET,
    RECONCILED,
    RESET,
    SCHEMA,
    SUM,
    TABLE,
    THRESHOLD,
    ZEROS,
    absorb,
    accumulator,
    bound,
    emit,
    index_of,
    start,
)
from common.kernels.native_decode import CUSTOM, NEGATIVE_KEY

LOWER_OPEN, UPPER_OPEN, BOTH_CLOSED = 0, 1, 3
"""Boundary rules of buckets: (lower, upper], [lower, upper), [lower, upper]; as Prometheus' API numbers them."""


@kernel(f"void({TABLE}, {TABLE}, float64, {TABLE}, uint8[::1])")
def add_rows(a, b, factor, out, flags):
    """Row i of `out` is a's plus `factor` times b's, which for a negative factor is a gauge."""
    width = widest = 0
    for row in range(len(flags)):
        width = max(width, a[AT][row + 1] - a[AT][row] + b[AT][row + 1] - b[AT][row])
        widest = max(widest, a[BOUND_AT][row + 1] - a[BOUND_AT][row])
    acc = accumulator(width, widest)
    for row in range(len(flags)):
        start(acc, a, row)
        flags[row] = absorb(acc, b, row, factor, False)
        if factor < 0.0:
            acc[0][3] = GAUGE
        emit(acc, True, out, row)


@device
def overflows(acc):
    for i in range(1, 4):
        if np.isinf(acc[1][i]):
            return True
    return bool(np.isinf(acc[3][: acc[0][1]]).any())


@device
def weigh(acc, factor):
    acc[1][1:] *= factor
    n = acc[0][1]
    acc[3][:n] *= factor
    acc[4][:n] *= factor


@device
def sum_rows(acc, table, rows, begin, end, mean):
    """Add the histograms rows[begin:end] to the sum, or to their mean as it grows; returns flags."""
    flags = 0
    seen = 0
    for at in range(begin, end):
        row = rows[at]
        hint = table[HINT][row]
        seen |= (1 if hint == RESET else 0) | (2 if hint == NOT_RESET else 0)
        if at == begin:
            start(acc, table, row)
            continue
        factor = 1.0
        if mean:
            n = float(at - begin + 1)
            weigh(acc, (n - 1.0) / n)
            factor = 1.0 / n
        said = absorb(acc, table, row, factor, False)
        if said & INCOMPATIBLE:
            return INCOMPATIBLE
        flags |= said & RECONCILED
    return flags | (CLASH if seen == 3 else 0)


@device
def sum_or_mean(acc, table, rows, begin, end, mean):
    flags = sum_rows(acc, table, rows, begin, end, False)
    if mean and not flags & INCOMPATIBLE:
        if overflows(acc):
            # A sum may be too large where the mean is not.
            sum_rows(acc, table, rows, begin, end, True)
        else:
            n = float(end - begin)
            acc[1][1:] /= n
            acc[3][: acc[0][1]] /= n
            acc[4][: acc[0][1]] /= n
    return flags


@kernel(f"void({TABLE}, int64[::1], int64[::1], int64[::1], boolean, {TABLE}, uint8[::1])")
def sum_ranges(table, rows, begins, ends, mean, out, flags):
    """Row i of `out` is the sum or mean of the histograms rows[begins[i]:ends[i]], added in that order.

    A range must not be empty. Where one is incompatible, the row means nothing.
    """
    width = widest = 0
    sizes = np.zeros(len(rows) + 1, np.int64)
    for i in range(len(rows)):
        sizes[i + 1] = sizes[i] + table[AT][rows[i] + 1] - table[AT][rows[i]]
        widest = max(widest, table[BOUND_AT][rows[i] + 1] - table[BOUND_AT][rows[i]])
    for i in range(len(begins)):
        width = max(width, sizes[ends[i]] - sizes[begins[i]])
    acc = accumulator(width, widest)
    for i in range(len(begins)):
        flags[i] = sum_or_mean(acc, table, rows, begins[i], ends[i], mean)
        if flags[i] & INCOMPATIBLE:
            acc[0][1] = 0
        emit(acc, True, out, i)


@device
def equal_rows(a, row, b, other):
    if a[SCHEMA][row] != b[SCHEMA][other] or a[THRESHOLD][row] != b[THRESHOLD][other]:
        return False
    same = (
        same_bits(a[ZEROS][row], b[ZEROS][other])
        and same_bits(a[COUNT][row], b[COUNT][other])
        and same_bits(a[SUM][row], b[SUM][other])
    )
    if not same:
        return False
    at, from_ = a[BOUND_AT][row], b[BOUND_AT][other]
    size = a[BOUND_AT][row + 1] - at
    if size != b[BOUND_AT][other + 1] - from_:
        return False
    for i in range(size):
        if a[BOUNDS][at + i] != b[BOUNDS][from_ + i]:
            return False
    i, j = a[AT][row], b[AT][other]
    stop, end = a[AT][row + 1], b[AT][other + 1]
    while True:
        while i < stop and a[BUCKETS][i] == 0.0:
            i += 1
        while j < end and b[BUCKETS][j] == 0.0:
            j += 1
        if i == stop or j == end:
            return i == stop and j == end
        if a[KEYS][i] != b[KEYS][j] or not same_bits(a[BUCKETS][i], b[BUCKETS][j]):
            return False
        i += 1
        j += 1


@device
def same_bits(a, b):
    """Equal as data: NaN is itself, 0 is not -0."""
    if np.isnan(a) or np.isnan(b):
        return np.isnan(a) and np.isnan(b)
    return a == b and (a != 0.0 or np.signbit(a) == np.signbit(b))


@kernel(f"void({TABLE}, int64[::1], {TABLE}, int64[::1], boolean[::1])")
def equal(a, rows, b, others, out):
    """Whether histograms are the same but for hints and empty buckets."""
    for i in range(len(out)):
        out[i] = equal_rows(a, rows[i], b, others[i])


@device
def limits(table, row, at):
    """(lower, upper) of a bucket, in order of value, the zero bucket taken out."""
    key = table[KEYS][at]
    if table[SCHEMA][row] == CUSTOM:
        begin = table[BOUND_AT][row]
        n = table[BOUND_AT][row + 1] - begin
        lower = table[BOUNDS][begin + key - 1] if 0 < key <= n else -np.inf
        upper = table[BOUNDS][begin + key] if key < n else np.inf
        return lower, upper
    schema = np.int64(table[SCHEMA][row])
    index = index_of(key)
    lower, upper = bound(index - 1, schema), bound(index, schema)
    return (-upper, -lower) if key < NEGATIVE_KEY // 2 else (lower, upper)


@device
def negatives(table, row):
    """How many of the buckets are negative ones."""
    n = np.int64(0)
    for at in range(table[AT][row], table[AT][row + 1]):
        if table[KEYS][at] >= NEGATIVE_KEY // 2:
            break
        n += 1
    return n


@kernel(f"void({TABLE}, int64[::1], uint8[::1], float64[::1], float64[::1], float64[::1])")
def list_buckets(table, offsets, rules, lower, upper, counts):
    """Buckets with something in them, by value; offsets (n + 1,) with offsets[0] = 0 is filled too."""
    n = np.int64(0)
    for row in range(len(offsets) - 1):
        begin, end = table[AT][row], table[AT][row + 1]
        n_negative = negatives(table, row)
        threshold = table[THRESHOLD][row]
        for i in range(n_negative - 1, -1, -1):
            if table[BUCKETS][begin + i] != 0.0:
                lower[n], upper[n] = limits(table, row, begin + i)
                upper[n] = min(upper[n], -threshold)
                rules[n], counts[n] = UPPER_OPEN, table[BUCKETS][begin + i]
                n += 1
        if table[SCHEMA][row] != CUSTOM and table[ZEROS][row] > 0.0:
            lower[n], upper[n] = -threshold, threshold
            rules[n], counts[n] = BOTH_CLOSED, table[ZEROS][row]
            n += 1
        for at in range(begin + n_negative, end):
            if table[BUCKETS][at] != 0.0:
                lower[n], upper[n] = limits(table, row, at)
                if table[SCHEMA][row] != CUSTOM:
                    lower[n] = max(lower[n], threshold)
                first_custom = table[SCHEMA][row] == CUSTOM and table[KEYS][at] == 0
                rules[n] = BOTH_CLOSED if first_custom else LOWER_OPEN
                counts[n] = table[BUCKETS][at]
                n += 1
        offsets[row + 1] = n


@device
def midpoint(lower, upper, positive, linear):
    """What the observations between two values are taken to be."""
    if np.isinf(lower):
        if np.isinf(upper):
            return 0.0
        return upper / 2.0 if upper > 0.0 else upper
    if np.isinf(upper):
        return lower
    if linear:
        return (lower + upper) / 2.0
    mean = np.sqrt(np.abs(lower * upper))
    return mean if positive else -mean


@device
def trim_open(upper_trim, lower, upper, count, limit):
    """(what is kept, what it is taken to be) of a bucket without an end."""
    if lower == -np.inf:
        if upper_trim:
            if limit >= upper:
                return count, 0.0
            if limit > 0.0 and 0.0 < upper < np.inf:
                return count * limit / upper, limit / 2.0
            if upper <= 0.0:
                return count, limit
            return 0.0, 0.0
        if limit <= lower:
            return count, 0.0
        if 0.0 <= limit < upper and upper < np.inf:
            return count * (1.0 - limit / upper), (limit + upper) / 2.0
        return 0.0, 0.0
    if not upper_trim and limit >= lower:
        return count, limit
    return 0.0, 0.0


@device
def trim_bucket(upper_trim, lower, upper, count, limit, positive, linear):
    """(what is kept, what it is taken to be) of a bucket that holds the limit."""
    if lower == -np.inf or upper == np.inf:
        return trim_open(upper_trim, lower, upper, count, limit)
    if linear:
        share = (limit - lower) / (upper - lower)
    else:
        low, high, at = np.log2(np.abs(lower)), np.log2(np.abs(upper)), np.log2(np.abs(limit))
        share = (at - low) / (high - low) if positive else 1.0 - (at - high) / (low - high)
    under = count * share
    if upper_trim:
        return under, midpoint(lower, limit, positive, linear)
    return count - under, midpoint(limit, upper, positive, linear)


@device
def trim_zero(upper_trim, threshold, count, limit, has_negative, has_positive):
    lower = 0.0 if has_positive and not has_negative else -threshold
    upper = 0.0 if has_negative and not has_positive else threshold
    if upper_trim:
        if limit <= lower:
            return 0.0, 0.0
        if limit >= upper:
            return count, (lower + upper) / 2.0
        return count * ((limit - lower) / (upper - lower)), (lower + limit) / 2.0
    if limit <= lower:
        return count, (lower + upper) / 2.0
    if limit >= upper:
        return 0.0, 0.0
    return count * ((upper - limit) / (upper - lower)), (limit + upper) / 2.0


@device
def trim_row(table, row, limit, upper_trim):
    """Trim in place. Sum and count are estimated anew if anything was cut off."""
    linear = table[SCHEMA][row] == CUSTOM
    n = total = 0.0
    changed = has_negative = has_positive = False
    n_negative = negatives(table, row)
    begin, end = table[AT][row], table[AT][row + 1]
    for side in range(2):
        first = begin + n_negative if side == 0 else begin
        stop = end if side == 0 else begin + n_negative
        for at in range(first, stop):
            count = table[BUCKETS][at]
            if count == 0.0:
                continue
            has_positive |= side == 0
            has_negative |= side == 1
            lower, upper = limits(table, row, at)
            if (upper_trim and upper <= limit) or (not upper_trim and lower >= limit):
                kept, middle = count, midpoint(lower, upper, side == 0, linear)
            elif (upper_trim and lower < limit) or (not upper_trim and upper > limit):
                kept, middle = trim_bucket(upper_trim, lower, upper, count, limit, side == 0, linear)
            else:
                kept = middle = 0.0
            changed |= kept != count
            table[BUCKETS][at] = kept
            n += kept
            total += middle * kept
    if table[ZEROS][row] > 0.0:
        count = table[ZEROS][row]
        kept, middle = trim_zero(upper_trim, table[THRESHOLD][row], count, limit, has_negative, has_positive)
        changed |= kept != count
        table[ZEROS][row] = kept
        n += kept
        total += middle * kept
    if changed:
        table[COUNT][row] = n
        table[SUM][row] = total


@kernel(f"void({TABLE}, float64[::1], boolean)")
def trim_rows(table, limits_, upper):
    """Keep, in place, the observations below (`upper`) or above each row's limit."""
    for row in range(len(limits_)):
        trim_row(table, row, limits_[row], upper)
