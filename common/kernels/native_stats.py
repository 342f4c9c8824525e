"""Quantiles, fractions and variances of native histograms.

Sources: Prometheus' `promql/quantile.go` (HistogramQuantile, HistogramFraction), `functions.go`
(histogramVariance).
"""

from __future__ import annotations

import numpy as np

from common.kernels.jit import inlined, kernel
from common.kernels.native_core import AT, BUCKETS, COUNT, SCHEMA, SUM, TABLE, THRESHOLD, ZEROS, plus
from common.kernels.native_decode import CUSTOM
from common.kernels.native_ops import limits, negatives

NAN_RESULT, NAN_SKEW, NAN_LEFT_OUT = 1, 2, 4
"""What observations of NaN did: no result, a quantile that is too high, fractions without them."""


@inlined
def bucket_at(table, row, n_negative, place):
    """(lower, upper, count) of a bucket by value: negative ones, the zero bucket, positive ones."""
    threshold = table[THRESHOLD][row]
    if place == n_negative:
        return -threshold, threshold, table[ZEROS][row]
    if place < n_negative:
        at = table[AT][row] + n_negative - 1 - place
        lower, upper = limits(table, row, at)
        if -threshold < upper < 0.0:
            upper = -threshold
    else:
        at = table[AT][row] + place - 1
        lower, upper = limits(table, row, at)
        if table[SCHEMA][row] != CUSTOM and 0.0 < lower < threshold:
            lower = threshold
    return lower, upper, table[BUCKETS][at]


@inlined
def between(lower, upper, share):
    """The value at a share of the way between two bounds of one sign, whose logarithms are spaced evenly."""
    low, high = np.log2(np.abs(lower)), np.log2(np.abs(upper))
    if lower > 0.0:
        return np.exp2(low + (high - low) * share)
    return -np.exp2(high + (low - high) * (1.0 - share))


@inlined
def quantile(table, row, q):
    """(quantile, what NaN did)."""
    if q < 0.0:
        return -np.inf, 0
    if q > 1.0:
        return np.inf, 0
    observations = table[COUNT][row]
    if observations == 0.0 or np.isnan(q):
        return np.nan, 0
    custom = table[SCHEMA][row] == CUSTOM
    n_negative = negatives(table, row)
    n = table[AT][row + 1] - table[AT][row]
    has_nan = np.isnan(table[SUM][row])
    forward = has_nan or q < 0.5
    rank = q * observations if forward else (1.0 - q) * observations
    lower = upper = own = total = 0.0
    place = np.int64(0)
    while place <= n:
        a, b, count = bucket_at(table, row, n_negative, place if forward else n - place)
        place += 1
        if count == 0.0:
            continue
        lower, upper, own = a, b, count
        total += count
        if total >= rank:
            break
    if not custom and lower < 0.0 < upper:
        lower = 0.0 if n_negative == 0 and n > 0 else lower
        upper = 0.0 if n_negative == n and n > 0 else upper
    elif custom and lower == -np.inf:
        if upper <= 0.0:
            return upper, 0
        lower = 0.0
    elif custom and upper == np.inf:
        return lower, 0
    total = min(total, observations)
    if total < rank:
        return (np.nan, NAN_RESULT) if has_nan else (upper, 0)
    rank = rank - (total - own) if forward else total - rank
    said = 0
    if has_nan:
        while place <= n:
            _, _, count = bucket_at(table, row, n_negative, place)
            total += count
            place += 1
        said = NAN_SKEW if total < observations else 0
    share = rank / own
    if custom or (lower <= 0.0 <= upper):
        return lower + (upper - lower) * share, said
    return between(lower, upper, share), said


@inlined
def rank_within(lower, upper, count, rank, value, linear):
    """Observations below a value inside a bucket."""
    if linear:
        if lower == -np.inf:
            return count
        return rank + count * (value - lower) / (upper - lower)
    low, high, at = np.log2(np.abs(lower)), np.log2(np.abs(upper)), np.log2(np.abs(value))
    if value > 0.0:
        return rank + count * ((at - low) / (high - low))
    return rank + count * (1.0 - (at - high) / (low - high))


@inlined
def fraction(table, row, low, high):
    """(share of the observations between two values, what NaN did)."""
    observations = table[COUNT][row]
    if observations == 0.0 or np.isnan(low) or np.isnan(high):
        return np.nan, 0
    if low >= high:
        return 0.0, 0
    custom = table[SCHEMA][row] == CUSTOM
    n_negative = negatives(table, row)
    n = table[AT][row + 1] - table[AT][row]
    total = rank = low_rank = high_rank = 0.0
    low_set = high_set = False
    for place in range(n + 1):
        lower, upper, count = bucket_at(table, row, n_negative, place)
        if place == n_negative and (custom or not count > 0.0):
            continue
        total += count
        if low_set and high_set:
            continue
        zero = lower <= 0.0 <= upper
        if zero and n_negative == 0 and n > 0:
            lower = 0.0
        elif zero and n_negative == n and n > 0:
            upper = 0.0
        if not low_set and lower >= low:
            low_rank, low_set = rank, True
        if not high_set and lower >= high:
            high_rank, high_set = rank, True
        if not low_set and lower < low < upper:
            low_rank, low_set = rank_within(lower, upper, count, rank, low, custom or zero), True
        if not high_set and lower < high < upper:
            high_rank, high_set = rank_within(lower, upper, count, rank, high, custom or zero), True
        rank += count
    said = 0
    if np.isnan(table[SUM][row]):
        said = NAN_LEFT_OUT if total < observations else 0
    else:
        total = observations
    if not low_set or low_rank > total:
        low_rank = total
    if not high_set or high_rank > total:
        high_rank = total
    return (high_rank - low_rank) / observations, said


@inlined
def variance(table, row):
    mean = table[SUM][row] / table[COUNT][row]
    n_negative = negatives(table, row)
    custom = table[SCHEMA][row] == CUSTOM
    total = compensation = 0.0
    for place in range(table[AT][row + 1] - table[AT][row] + 1):
        lower, upper, count = bucket_at(table, row, n_negative, place)
        if count == 0.0 or (place == n_negative and not count > 0.0):
            continue
        if custom:
            value = (upper + lower) / 2.0
        elif lower <= 0.0 <= upper:
            value = 0.0
        else:
            value = np.sqrt(upper * lower) * (-1.0 if upper < 0.0 else 1.0)
        delta = value - mean
        total, compensation = plus(count * delta * delta, total, compensation)
    return (total + compensation) / table[COUNT][row]


@kernel(f"void({TABLE}, int64[::1], float64[::1], float64[::1], uint8[::1])")
def quantiles(table, rows, q, out, said):
    """The quantile q[i] of histogram rows[i]."""
    for i in range(len(rows)):
        out[i], said[i] = quantile(table, rows[i], q[i])


@kernel(f"void({TABLE}, int64[::1], float64[::1], float64[::1], float64[::1], uint8[::1])")
def fractions(table, rows, low, high, out, said):
    """The share of the observations of histogram rows[i] that lie between low[i] and high[i]."""
    for i in range(len(rows)):
        out[i], said[i] = fraction(table, rows[i], low[i], high[i])


@kernel(f"void({TABLE}, float64[::1])")
def variances(table, out):
    """The estimated variance of each histogram's observations."""
    for row in range(len(out)):
        out[row] = variance(table, row)
