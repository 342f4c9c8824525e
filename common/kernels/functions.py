"""Statistics over sliding windows: the `*_over_time` family, regression and smoothing.

Samples are in compressed-sparse-row form; the window of step k is (ends[k] - range_ms, ends[k]] and `ends` never
descends. Sums are scanned anew for each window with the compensation of Neumaier (1974), "Rundungsfehleranalyse
einiger Verfahren zur Summation endlicher Summen", as Prometheus does: results are equal to the last bit, and no
error is carried from window to window. The error of each addition is taken from Knuth's TwoSum (TAOCP 2, 4.2.2),
which is the same number without a branch.
"""

from __future__ import annotations

import numpy as np

from common.kernels.jit import device, kernel

SUM, AVG, COUNT, PRESENT, LAST, FIRST, TS_LAST, TS_FIRST, STDVAR, STDDEV, MIN, MAX, TS_MIN, TS_MAX = range(14)
QUANTILE, MAD = range(2)
DERIV, PREDICT_LINEAR, SMOOTHING = range(3)


@device
def add(sum_, carry, value):
    """One compensated addition: the new sum and the new compensation."""
    total = sum_ + value
    if np.isinf(total):
        return total, 0.0
    part = total - sum_
    return total, carry + ((sum_ - (total - part)) + (value - part))


@device
def sum_of(values, low, high):
    total = carry = 0.0
    for i in range(low, high):
        total, carry = add(total, carry, values[i])
    return total if np.isinf(total) else total + carry


@device
def mean_of(values, low, high):
    """Mean by the plain sum; from where that overflows on, by updating the mean."""
    total = values[low]
    carry = 0.0
    for i in range(low + 1, high):
        new_total, new_carry = add(total, carry, values[i])
        if np.isinf(new_total):
            return incremental_mean(values, low, i, high, total, carry)
        total, carry = new_total, new_carry
    count = float(high - low)
    return total / count + carry / count


@device
def incremental_mean(values, low, at, high, total, carry):
    count = float(at - low)
    mean = total / count
    carry /= count
    for i in range(at, high):
        count = float(i - low + 1)
        shrink = (count - 1.0) / count
        mean, carry = add(shrink * mean, shrink * carry, values[i] / count)
    return mean + carry


@device
def variance_of(values, low, high):
    """Population variance by Welford's method with compensated sums."""
    count = mean = mean_carry = total = total_carry = 0.0
    for i in range(low, high):
        count += 1.0
        delta = values[i] - (mean + mean_carry)
        mean, mean_carry = add(mean, mean_carry, delta / count)
        total, total_carry = add(total, total_carry, delta * (values[i] - (mean + mean_carry)))
    return (total + total_carry) / count


@device
def replaces(op, value, best):
    """Whether a later value takes the place of the extremum so far. NaN never does, and always gives way."""
    if np.isnan(best):
        return True
    if op == MIN:
        return value < best
    if op == MAX:
        return value > best
    if op == TS_MIN:
        return value <= best
    return value >= best


@kernel("void(int64, int64[::1], int64[::1], float64[::1], int64[::1], int64, float64[:, ::1], boolean[:, ::1])")
def aggregate_windows(op, offsets, timestamps, values, ends, range_ms, out, present):
    """Fill `out` and `present` (n_series, n_steps) with one statistic; absent where a window is empty."""
    for row in range(out.shape[0]):
        stop = offsets[row + 1]
        low = high = offsets[row]
        best = -1
        for step in range(ends.shape[0]):
            entered = high
            while high < stop and timestamps[high] <= ends[step]:
                high += 1
            begin = ends[step] - range_ms
            while low < high and timestamps[low] <= begin:
                low += 1
            present[row, step] = high > low
            out[row, step] = 0.0
            if high == low:
                continue
            if op == SUM:
                out[row, step] = sum_of(values, low, high)
            elif op == AVG:
                out[row, step] = mean_of(values, low, high)
            elif op == COUNT:
                out[row, step] = high - low
            elif op == PRESENT:
                out[row, step] = 1.0
            elif op == LAST:
                out[row, step] = values[high - 1]
            elif op == FIRST:
                out[row, step] = values[low]
            elif op == TS_LAST:
                out[row, step] = timestamps[high - 1] / 1000.0
            elif op == TS_FIRST:
                out[row, step] = timestamps[low] / 1000.0
            elif op == STDVAR:
                out[row, step] = variance_of(values, low, high)
            elif op == STDDEV:
                out[row, step] = np.sqrt(variance_of(values, low, high))
            else:
                # The extremum of the last window stays one as long as it has not left; else look again.
                if best < low:
                    best = low
                    entered = low
                for i in range(entered, high):
                    if replaces(op, values[i], values[best]):
                        best = i
                out[row, step] = values[best] if op <= MAX else timestamps[best] / 1000.0


@device
def precedes(a, b):
    """The order of sorting: NaN comes first."""
    return a < b or (np.isnan(a) and not np.isnan(b))


@device
def position(sorted_, size, value):
    """Index of the first of `size` sorted values that does not precede the value."""
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        if precedes(sorted_[middle], value):
            low = middle + 1
        else:
            high = middle
    return low


@device
def merge_sort(data, scratch, size):
    """Sort the first `size` values, bottom up."""
    width = 1
    while width < size:
        for start in range(0, size, 2 * width):
            middle, stop = min(start + width, size), min(start + 2 * width, size)
            left, right = start, middle
            for i in range(start, stop):
                if left < middle and (right >= stop or not precedes(data[right], data[left])):
                    scratch[i] = data[left]
                    left += 1
                else:
                    scratch[i] = data[right]
                    right += 1
        for i in range(size):
            data[i] = scratch[i]
        width *= 2


@device
def quantile_of(sorted_, size, q):
    """Quantile of sorted values, between neighbours by linear interpolation."""
    if np.isnan(q):
        return np.nan
    if q < 0.0:
        return -np.inf
    if q > 1.0:
        return np.inf
    rank = q * (size - 1.0)
    below = int(max(0.0, np.floor(rank)))
    above = min(size - 1, below + 1)
    weight = rank - np.floor(rank)
    return sorted_[below] * (1.0 - weight) + sorted_[above] * weight


@device
def median_deviation(sorted_, scratch, size):
    """Median distance from the median; NaN if any value is."""
    if np.isnan(sorted_[0]):
        return np.nan
    median = quantile_of(sorted_, size, 0.5)
    # Distances descend up to the median and ascend from it: two sorted runs, merged from the median outwards.
    right = position(sorted_, size, median)
    left = right - 1
    for i in range(size):
        if left >= 0 and (
            right >= size or not precedes(np.abs(sorted_[right] - median), np.abs(sorted_[left] - median))
        ):
            scratch[i] = np.abs(sorted_[left] - median)
            left -= 1
        else:
            scratch[i] = np.abs(sorted_[right] - median)
            right += 1
    return quantile_of(scratch, size, 0.5)


@kernel(
    "void(int64, float64[::1], int64[::1], int64[::1], float64[::1], int64[::1], int64, float64[:, ::1],"
    " boolean[:, ::1])"
)
def rank_windows(op, q, offsets, timestamps, values, ends, range_ms, out, present):
    """Fill `out` and `present` with the quantile q[step] or the median absolute deviation of each window.

    The window is kept sorted: samples are put in and taken out one by one, or sorted anew where many change.
    """
    longest = 0
    for row in range(out.shape[0]):
        longest = max(longest, offsets[row + 1] - offsets[row])
    window = np.empty(longest)
    scratch = np.empty(longest)
    for row in range(out.shape[0]):
        stop = offsets[row + 1]
        low = high = offsets[row]
        size = 0
        for step in range(ends.shape[0]):
            old_low, old_high = low, high
            while high < stop and timestamps[high] <= ends[step]:
                high += 1
            begin = ends[step] - range_ms
            while low < high and timestamps[low] <= begin:
                low += 1
            if 4 * ((low - old_low) + (high - old_high)) > high - low:
                size = high - low
                for i in range(size):
                    window[i] = values[low + i]
                merge_sort(window, scratch, size)
            else:
                for i in range(old_low, low):
                    size -= 1
                    for at in range(position(window, size + 1, values[i]), size):
                        window[at] = window[at + 1]
                for i in range(old_high, high):
                    slot = position(window, size, values[i])
                    for at in range(size, slot, -1):
                        window[at] = window[at - 1]
                    window[slot] = values[i]
                    size += 1
            present[row, step] = size > 0
            out[row, step] = 0.0
            if size > 0 and op == QUANTILE:
                out[row, step] = quantile_of(window, size, q[step])
            elif size > 0:
                out[row, step] = median_deviation(window, scratch, size)


@device
def regression(timestamps, values, low, high, origin_ms):
    """Least squares over a window: slope per second, and the line's value at `origin_ms`."""
    count = sum_x = carry_x = sum_y = carry_y = sum_xy = carry_xy = sum_xx = carry_xx = 0.0
    constant = True
    for i in range(low, high):
        if values[i] != values[low] and i > low:
            constant = False
        count += 1.0
        x = (timestamps[i] - origin_ms) / 1000.0
        sum_x, carry_x = add(sum_x, carry_x, x)
        sum_y, carry_y = add(sum_y, carry_y, values[i])
        sum_xy, carry_xy = add(sum_xy, carry_xy, x * values[i])
        sum_xx, carry_xx = add(sum_xx, carry_xx, x * x)
    if constant:
        if np.isinf(values[low]):
            return np.nan, np.nan
        return 0.0, values[low]
    sum_x += carry_x
    sum_y += carry_y
    sum_xy += carry_xy
    sum_xx += carry_xx
    slope = (sum_xy - sum_x * sum_y / count) / (sum_xx - sum_x * sum_x / count)
    return slope, sum_y / count - slope * sum_x / count


@device
def smoothed(values, low, high, smoothing, trend):
    """Holt's linear trend method over a window of at least two samples."""
    older = 0.0
    level = values[low]
    slope = values[low + 1] - values[low]
    for i in range(low + 1, high):
        if i > low + 1:
            slope = trend * (level - older) + (1.0 - trend) * slope
        older, level = level, smoothing * values[i] + (1.0 - smoothing) * (level + slope)
    return level


@kernel(
    "void(int64, float64[::1], float64[::1], int64[::1], int64[::1], int64[::1], float64[::1], int64[::1], int64,"
    " float64[:, ::1], boolean[:, ::1])"
)
def fit_windows(op, a, b, times, offsets, timestamps, values, ends, range_ms, out, present):
    """Fill `out` and `present` with a fit to each window of at least two samples.

    a, b: float64 (n_steps,). PREDICT_LINEAR: a is the seconds to look ahead from times[step]. SMOOTHING: a is the
    smoothing factor and b the trend factor.
    """
    for row in range(out.shape[0]):
        stop = offsets[row + 1]
        low = high = offsets[row]
        for step in range(ends.shape[0]):
            while high < stop and timestamps[high] <= ends[step]:
                high += 1
            begin = ends[step] - range_ms
            while low < high and timestamps[low] <= begin:
                low += 1
            present[row, step] = high - low >= 2
            out[row, step] = 0.0
            if high - low < 2:
                continue
            if op == DERIV:
                out[row, step] = regression(timestamps, values, low, high, timestamps[low])[0]
            elif op == PREDICT_LINEAR:
                slope, level = regression(timestamps, values, low, high, times[step])
                out[row, step] = slope * a[step] + level
            else:
                out[row, step] = smoothed(values, low, high, a[step], b[step])
