"""Quantiles and fractions of classic histograms, which are series of cumulative counts, one for each upper bound.

Sources: Prometheus' documentation of `histogram_quantile` and `histogram_fraction`, and `promql/quantile.go`.
"""

from __future__ import annotations

import numpy as np

from common.kernels.jit import device, kernel

QUANTILE, FRACTION = range(2)

SMALL_DELTA_TOLERANCE = 1e-12
"""Counts of neighbouring buckets with a smaller relative difference are the same but for rounding."""

SMALLEST_NORMAL = 2.2250738585072014e-308
LARGEST = 1.7976931348623157e308


@device
def almost_equal(a, b):
    if np.isnan(a) and np.isnan(b):
        return True
    total = np.abs(a) + np.abs(b)
    difference = np.abs(a - b)
    if a == 0.0 or b == 0.0 or total < SMALLEST_NORMAL:
        return difference < SMALL_DELTA_TOLERANCE * SMALLEST_NORMAL
    return difference / min(total, LARGEST) < SMALL_DELTA_TOLERANCE


@device
def make_monotonic(bounds, counts, size, fixed):
    """Let no count be below the one before. Tells whether one had to be raised by more than rounding explains.

    fixed: float64 (3,); lowest and highest bound and greatest difference of the counts raised so far.
    """
    forced = False
    previous = counts[0]
    for i in range(1, size):
        if counts[i] == previous:
            continue
        if almost_equal(previous, counts[i]):
            counts[i] = previous
        elif counts[i] < previous:
            forced = True
            fixed[0] = min(fixed[0], bounds[i])
            fixed[1] = max(fixed[1], bounds[i])
            fixed[2] = max(fixed[2], previous - counts[i])
            counts[i] = previous
        else:
            previous = counts[i]
    return forced


@device
def bucket_quantile(q, bounds, counts, size):
    """Quantile of at least one bucket, 0 <= q <= 1, the last bound being +Inf and the counts monotonic."""
    observations = counts[size - 1]
    if size < 2 or observations == 0.0:
        return np.nan
    rank = q * observations
    low, high = 0, size - 1
    while low < high:
        middle = (low + high) // 2
        if counts[middle] >= rank:
            high = middle
        else:
            low = middle + 1
    if low == size - 1:
        return bounds[size - 2]
    if low == 0:
        if bounds[0] <= 0.0:
            return bounds[0]
        return bounds[0] * (rank / counts[0])
    before = counts[low - 1]
    return bounds[low - 1] + (bounds[low] - bounds[low - 1]) * ((rank - before) / (counts[low] - before))


@device
def rank_at(at, bounds, counts, size):
    """How many observations lie below a value, by linear interpolation inside the buckets."""
    lower = 0.0 if bounds[0] > 0.0 else -np.inf
    rank = 0.0
    for i in range(size):
        if lower >= at:
            return rank
        if bounds[i] > at:
            # A bucket without a lower end cannot be divided: it counts as wholly below.
            if lower == -np.inf:
                return counts[i]
            return rank + (counts[i] - rank) * (at - lower) / (bounds[i] - lower)
        rank = counts[i]
        lower = bounds[i]
    return counts[size - 1]


@device
def bucket_fraction(lower, upper, bounds, counts, size):
    """Share of the observations between two values, the last bound being +Inf."""
    observations = counts[size - 1]
    if observations == 0.0 or np.isnan(lower) or np.isnan(upper):
        return np.nan
    if lower >= upper:
        return 0.0
    below = rank_at(lower, bounds, counts, size)
    within = rank_at(upper, bounds, counts, size)
    # Counts that are not monotonic may give a rank above the total.
    if below > observations:
        below = observations
    if within > observations:
        within = observations
    return (within - below) / observations


@kernel(
    "void(int64, float64[::1], float64[::1], int64[::1], int64[::1], float64[::1], float64[:, ::1],"
    " boolean[:, ::1], float64[:, ::1], boolean[:, ::1], float64[:, ::1], int64[:, ::1])"
)
def classic_histograms(op, a, b, offsets, rows, bounds, values, present, out, out_present, fixed, fixed_steps):
    """Fill `out` and `out_present` (n_histograms, n_steps).

    a, b: float64 (n_steps,); the quantile and nothing, or the lower and the upper value.
    offsets: int64 (n_histograms + 1,); rows: int64 (n_buckets,), rows of `values` and `present` (n_series,
    n_steps), those of a histogram by ascending upper bound; bounds: float64 (n_buckets,).
    fixed: float64 (n_histograms, 3), as in make_monotonic, (+inf, -inf, 0) at first; fixed_steps: int64
    (n_histograms, 3), steps at which monotonicity was forced: how many (0 at first), the first, the last.
    """
    widest = 0
    for group in range(out.shape[0]):
        widest = max(widest, offsets[group + 1] - offsets[group])
    ends = np.empty(widest)
    counts = np.empty(widest)
    for group in range(out.shape[0]):
        for step in range(out.shape[1]):
            size = 0
            for bucket in range(offsets[group], offsets[group + 1]):
                row = rows[bucket]
                if not present[row, step]:
                    continue
                # Different spellings of one bound are one bucket.
                if size > 0 and ends[size - 1] == bounds[bucket]:
                    counts[size - 1] += values[row, step]
                else:
                    ends[size] = bounds[bucket]
                    counts[size] = values[row, step]
                    size += 1
            out_present[group, step] = size > 0
            out[group, step] = 0.0
            if size == 0:
                continue
            q = a[step]
            if op == QUANTILE and not (q >= 0.0 and q <= 1.0):
                out[group, step] = np.nan if np.isnan(q) else (-np.inf if q < 0.0 else np.inf)
            elif ends[size - 1] != np.inf:
                out[group, step] = np.nan
            elif op == FRACTION:
                out[group, step] = bucket_fraction(a[step], b[step], ends, counts, size)
            else:
                if make_monotonic(ends, counts, size, fixed[group]):
                    if fixed_steps[group, 0] == 0:
                        fixed_steps[group, 1] = step
                    fixed_steps[group, 0] += 1
                    fixed_steps[group, 2] = step
                out[group, step] = bucket_quantile(q, ends, counts, size)
