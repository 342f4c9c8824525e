"""What kernels over native histograms share: bucket bounds, and a histogram to which others are added.

A table of histograms is the tuple of `common.histograms.Histograms.columns()`. The histogram that is being added
to, an accumulator, is the tuple that `accumulator` makes: integers, scalars, and buckets with their compensations.

Sources: Prometheus' `model/histogram` (float_histogram.go, generic.go); A. Neumaier, "Rundungsfehleranalyse
einiger Verfahren zur Summation endlicher Summen" (1974).
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from itertools import accumulate, repeat
from operator import mul

import numpy as np

from common.kernels.jit import device, inlined
from common.kernels.native_decode import CUSTOM, NEGATIVE_KEY

TABLE = (
    "Tuple((uint8[::1], int32[::1], float64[::1], float64[::1], float64[::1], float64[::1], int64[::1],"
    " int64[::1], float64[::1], int64[::1], float64[::1]))"
)
HINT, SCHEMA, THRESHOLD, ZEROS, COUNT, SUM, AT, KEYS, BUCKETS, BOUND_AT, BOUNDS = range(11)
"""Places in such a tuple."""
INCOMPATIBLE, RECONCILED, CLASH = 1, 2, 4
"""What can be said of an addition."""
UNKNOWN, RESET, NOT_RESET, GAUGE = range(4)
_BORDER = NEGATIVE_KEY // 2
LARGEST = 1.7976931348623157e308


def _fractions() -> np.ndarray:
    with localcontext() as context:
        context.prec = 40
        step = Decimal(2) ** (Decimal(1) / 256)
        # Multiplied, for 256 powers are a thirtieth of what a server takes to start.
        return np.array([float(power) for power in accumulate(repeat(step, 255), mul, initial=Decimal("0.5"))])


_FRACTIONS = _fractions()
"""2^(k/256 - 1)."""


@inlined
def scaled(fraction, exponent):
    """fraction * 2^exponent, infinite where that is too large."""
    if exponent > 1024:
        return np.inf if not (fraction == 0.5 and exponent == 1025) else LARGEST
    if exponent < -1080:
        return 0.0
    if fraction >= 1.0 and exponent == 1024:
        return LARGEST
    return math.ldexp(fraction, int(exponent))


@inlined
def bound(index, schema):
    """Upper bound, as an absolute value, of a bucket of an exponential schema."""
    if schema < 0:
        return scaled(1.0, index << -schema)
    part = (index & ((1 << schema) - 1)) << (8 - schema)
    return scaled(_FRACTIONS[part], (index >> schema) + 1)


@inlined
def index_of(key):
    return key - NEGATIVE_KEY if key < _BORDER else key


@inlined
def reduced(key, steps):
    """The key of the bucket of a coarser schema that holds this one."""
    if key < _BORDER:
        return ((key - NEGATIVE_KEY - 1) >> steps) + 1 + NEGATIVE_KEY
    return ((key - 1) >> steps) + 1


@inlined
def plus(value, total, compensation):
    """Neumaier's sum: (total, compensation) with one more value."""
    result = total + value
    if np.isinf(result):
        return result, 0.0
    if np.abs(total) >= np.abs(value):
        return result, compensation + ((total - result) + value)
    return result, compensation + ((value - result) + total)


@inlined
def zero_count(keys, counts, start, stop, schema, zeros, larger):
    """(zero count, threshold) with the threshold raised to `larger`, and to the end of the bucket it cuts."""
    while True:
        total = zeros
        again = False
        for sign in range(2):
            for at in range(start, stop):
                if (keys[at] < _BORDER) != (sign == 1):
                    continue
                index = index_of(keys[at])
                if bound(index - 1, schema) >= larger:
                    break
                total += counts[at]
                upper = bound(index, schema)
                if upper > larger:
                    if counts[at] != 0.0:
                        larger = upper
                        again = sign == 1
                    break
        if not again:
            return total, larger


@device
def accumulator(n_buckets, n_bounds):
    """Room for a sum; its integers: schema, buckets, bounds, hint; its scalars: see `start`."""
    return (
        np.zeros(4, np.int64),
        np.zeros(7),
        np.empty(n_buckets, np.int64),
        np.empty(n_buckets),
        np.empty(n_buckets),
        np.empty(n_buckets, np.int64),
        np.empty(n_buckets),
        np.empty(n_buckets),
        np.empty(n_bounds),
        np.empty(n_buckets, np.int64),
        np.empty(n_buckets),
    )


@device
def start(acc, table, row):
    """Let the sum be this histogram. Scalars: zero threshold, zero count, count, sum, their compensations."""
    integers, scalars = acc[0], acc[1]
    n = table[AT][row + 1] - table[AT][row]
    integers[0] = table[SCHEMA][row]
    integers[1] = n
    integers[2] = table[BOUND_AT][row + 1] - table[BOUND_AT][row]
    integers[3] = table[HINT][row]
    scalars[0] = table[THRESHOLD][row]
    scalars[1] = table[ZEROS][row]
    scalars[2] = table[COUNT][row]
    scalars[3] = table[SUM][row]
    scalars[4:] = 0.0
    for i in range(n):
        acc[2][i] = table[KEYS][table[AT][row] + i]
        acc[3][i] = table[BUCKETS][table[AT][row] + i]
        acc[4][i] = 0.0
    for i in range(integers[2]):
        acc[8][i] = table[BOUNDS][table[BOUND_AT][row] + i]


@device
def coarsen(keys, counts, n, steps):
    """Merge buckets in place for a coarser schema; returns how many are left."""
    size = 0
    for i in range(n):
        key = reduced(keys[i], steps)
        if size > 0 and keys[size - 1] == key:
            counts[size - 1] += counts[i]
        else:
            keys[size] = key
            counts[size] = counts[i]
            size += 1
    return size


@device
def coarsen_sum(acc, schema):
    steps = acc[0][0] - schema
    if steps > 0:
        n = acc[0][1]
        acc[5][:n] = acc[2][:n]
        coarsen(acc[5], acc[4], n, steps)
        acc[0][1] = coarsen(acc[2], acc[3], n, steps)
        acc[0][0] = schema


@device
def reconcile_zero(acc, table, row):
    """Widen the zero buckets of both until they are equal; returns what is then in the other's."""
    integers, scalars = acc[0], acc[1]
    begin, end = table[AT][row], table[AT][row + 1]
    zeros, threshold = table[ZEROS][row], table[THRESHOLD][row]
    while threshold != scalars[0]:
        if scalars[0] > threshold:
            zeros, threshold = zero_count(
                table[KEYS], table[BUCKETS], begin, end, table[SCHEMA][row], table[ZEROS][row], scalars[0]
            )
        if threshold > scalars[0]:
            scalars[1], scalars[0] = zero_count(
                acc[2], acc[3], np.int64(0), integers[1], integers[0], scalars[1], threshold
            )
            kept = 0
            for i in range(integers[1]):
                if bound(index_of(acc[2][i]) - 1, integers[0]) >= scalars[0]:
                    acc[2][kept] = acc[2][i]
                    acc[3][kept] = acc[3][i]
                    acc[4][kept] = acc[4][i]
                    kept += 1
            integers[1] = kept
    return zeros


@device
def merge(acc, n):
    """Add the n buckets in acc[9] and acc[10] to those of the sum."""
    size = i = j = 0
    mine = acc[0][1]
    # Histograms of one series mostly have the same buckets.
    while i < mine and i < n and acc[2][i] == acc[9][i]:
        i += 1
    if i == mine == n:
        for i in range(n):
            acc[3][i], acc[4][i] = plus(acc[10][i], acc[3][i], acc[4][i])
        return
    i = 0
    while i < mine or j < n:
        if j == n or (i < mine and acc[2][i] < acc[9][j]):
            acc[5][size], acc[6][size], acc[7][size] = acc[2][i], acc[3][i], acc[4][i]
            i += 1
        elif i == mine or acc[9][j] < acc[2][i]:
            acc[5][size], acc[6][size], acc[7][size] = acc[9][j], acc[10][j], 0.0
            j += 1
        else:
            acc[5][size] = acc[2][i]
            acc[6][size], acc[7][size] = plus(acc[10][j], acc[3][i], acc[4][i])
            i += 1
            j += 1
        size += 1
    acc[2][:size] = acc[5][:size]
    acc[3][:size] = acc[6][:size]
    acc[4][:size] = acc[7][:size]
    acc[0][1] = size


@device
def rebucket(keys, counts, n, bounds, at, n_bounds, common, n_common):
    """Move counts of custom buckets to those between the common bounds; returns how many buckets there are."""
    size = 0
    for i in range(n):
        target = n_common
        if keys[i] < n_bounds:
            target = np.searchsorted(common[:n_common], bounds[at + keys[i]])
        if size > 0 and keys[size - 1] == target:
            counts[size - 1] += counts[i]
        else:
            keys[size] = target
            counts[size] = counts[i]
            size += 1
    return size


@device
def reconcile_bounds(acc, table, row, n):
    """Bring the sum and the n buckets to be added to the bounds that both have. Tells whether they differed."""
    begin = table[BOUND_AT][row]
    size = table[BOUND_AT][row + 1] - begin
    mine = acc[0][2]
    same = size == mine
    for i in range(size):
        same = same and acc[8][i] == table[BOUNDS][begin + i]
    if same:
        return n, False
    common = np.empty(min(size, mine))
    n_common = i = j = 0
    while i < mine and j < size:
        a, b = acc[8][i], table[BOUNDS][begin + j]
        if a == b:
            common[n_common] = a
            n_common += 1
        i += a <= b
        j += b <= a
    own = acc[0][1]
    acc[5][:own] = acc[2][:own]
    rebucket(acc[5], acc[4], own, acc[8], 0, mine, common, n_common)
    acc[0][1] = rebucket(acc[2], acc[3], own, acc[8], 0, mine, common, n_common)
    n = rebucket(acc[9], acc[10], n, table[BOUNDS], begin, size, common, n_common)
    acc[8][:n_common] = common[:n_common]
    acc[0][2] = n_common
    return n, True


@device
def joined(hint, other):
    """(hint of a sum, whether one says reset and the other that there was none)."""
    if hint == other:
        return hint, False
    if hint == GAUGE or other == GAUGE:
        return GAUGE, False
    return UNKNOWN, hint != UNKNOWN and other != UNKNOWN


@device
def absorb(acc, table, row, factor, layout_only):
    """Add `factor` times a histogram to the sum; with `layout_only`, its resolution alone. Returns flags."""
    integers, scalars = acc[0], acc[1]
    custom = integers[0] == CUSTOM
    schema = np.int64(table[SCHEMA][row])
    if custom != (schema == CUSTOM):
        return INCOMPATIBLE
    begin = table[AT][row]
    n = np.int64(0) if layout_only else table[AT][row + 1] - begin
    flags = 0
    if custom:
        for i in range(n):
            acc[9][i] = table[KEYS][begin + i]
            acc[10][i] = factor * table[BUCKETS][begin + i]
        n, differed = reconcile_bounds(acc, table, row, n)
        flags = RECONCILED if differed else 0
        merge(acc, n)
    else:
        if not layout_only:
            zeros = reconcile_zero(acc, table, row)
            scalars[1], scalars[4] = plus(factor * zeros, scalars[1], scalars[4])
        coarsen_sum(acc, schema)
        steps = schema - integers[0]
        size = 0
        # Buckets grow away from zero on both sides: behind the first that is not in the zero bucket none is.
        passed = np.int64(0)
        for i in range(n):
            key = reduced(table[KEYS][begin + i], steps) if steps > 0 else table[KEYS][begin + i]
            side = 1 if key < _BORDER else 2
            if passed != side:
                if bound(index_of(key), integers[0]) <= scalars[0]:
                    continue
                passed = side
            if size > 0 and acc[9][size - 1] == key:
                acc[10][size - 1] += factor * table[BUCKETS][begin + i]
            else:
                acc[9][size] = key
                acc[10][size] = factor * table[BUCKETS][begin + i]
                size += 1
        merge(acc, size)
    if not layout_only:
        scalars[2], scalars[5] = plus(factor * table[COUNT][row], scalars[2], scalars[5])
        scalars[3], scalars[6] = plus(factor * table[SUM][row], scalars[3], scalars[6])
    hint, clash = joined(integers[3], np.int64(table[HINT][row]))
    integers[3] = hint
    return flags | (CLASH if clash else 0)


@device
def emit(acc, compensated, out, row):
    """Write the sum to a row of a table, without empty buckets; the rows before must be there."""
    integers, scalars = acc[0], acc[1]
    out[HINT][row] = integers[3]
    out[SCHEMA][row] = integers[0]
    out[THRESHOLD][row] = scalars[0]
    out[ZEROS][row] = scalars[1] + scalars[4] if compensated else scalars[1]
    out[COUNT][row] = scalars[2] + scalars[5] if compensated else scalars[2]
    out[SUM][row] = scalars[3] + scalars[6] if compensated else scalars[3]
    at = out[AT][row]
    for i in range(integers[1]):
        count = acc[3][i] + acc[4][i] if compensated else acc[3][i]
        if count != 0.0:
            out[KEYS][at] = acc[2][i]
            out[BUCKETS][at] = count
            at += 1
    out[AT][row + 1] = at
    bounds_at = out[BOUND_AT][row]
    for i in range(integers[2]):
        out[BOUNDS][bounds_at + i] = acc[8][i]
    out[BOUND_AT][row + 1] = bounds_at + integers[2]
